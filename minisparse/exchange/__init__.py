"""Weights in and out: safetensors and npz files, with PyTorch's names and axis order."""

from minisparse.exchange.files import read, write
from minisparse.exchange.fingerprint import fingerprint
from minisparse.exchange.state_dict import from_torch, load_into, to_torch

__all__ = ["fingerprint", "from_torch", "load_into", "read", "to_torch", "write"]
