"""Scores of trained or training networks: which weights matter."""
