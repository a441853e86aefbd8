"""Pruning at initialisation."""
