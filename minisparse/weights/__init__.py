"""Weights other than the masked one: reparametrisations and storage forms."""
