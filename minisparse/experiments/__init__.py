"""Experiments: what a run is, running many, keeping the results, and showing them."""
