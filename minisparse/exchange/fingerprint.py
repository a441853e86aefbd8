"""One short text for all that a network computes with."""

from __future__ import annotations

import hashlib

from minisparse.exchange.state_dict import to_torch
from minisparse.nn.network import Network

LENGTH = 16


def fingerprint(network: Network) -> str:
    """First 16 hexadecimal digits of the SHA-256 of names, types, shapes, numbers and masks.

    The model's name is not part of it, nor is the file the numbers came from.
    """
    digest = hashlib.sha256()
    for name, array in sorted(to_torch(network, masks=True).items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:LENGTH]
