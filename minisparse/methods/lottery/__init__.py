"""Lottery tickets: prune, rewind, retrain."""
