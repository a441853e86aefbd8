"""Sparsity learned with the weights: reparametrised during training, masked at the end."""
