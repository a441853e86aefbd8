"""Training: the state of a run, the one loop, and what a run returns."""
