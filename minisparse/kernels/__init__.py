"""Compiled loops on raw arrays. Imports only numpy and numba, and nothing of minisparse."""
