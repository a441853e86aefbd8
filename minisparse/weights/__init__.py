"""Weights beside the masked dense one: reparametrised for training, compressed for storage and speed."""
