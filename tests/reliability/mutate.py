"""Damage: bytes and texts that are nearly right."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Rng = np.random.Generator

# Bytes at which readers have gone wrong: extremes of every width, magic numbers, text that means something.
NASTY = (
    b"\0", b"\xff", b"\x7f", b"\x80", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0",
    b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\x1f\x8b", b"PK\x03\x04",
    b"PK\x05\x06",
    b"\x93NUMPY", b"\x80\x04", b"ustar", b"../", b"/", b"NaN", b"Infinity", b"-1", b"1e999", b"null", b"true",
    b"[", b"{", b"}", b"]", b'"', b"\\u0000", b"\\ud800", b"\r\n", b"\xc3\x28", b"\xef\xbb\xbf", b"9" * 25,
    b"[" * 5_000, b'{"a":' * 5_000,
)  # fmt: skip


def _spot(rng: Rng, content: bytes) -> int:
    """A place in the content; half of them in the first 200 bytes, where headers are."""
    end = min(len(content), 200) if rng.random() < 0.5 else len(content)
    return int(rng.integers(end + 1))


def flip(rng: Rng, content: bytes, others: Sequence[bytes]) -> bytes:
    """One bit."""
    at = max(0, min(_spot(rng, content), len(content) - 1))
    return content[:at] + bytes([content[at] ^ (1 << int(rng.integers(8)))]) + content[at + 1 :]


def change(rng: Rng, content: bytes, others: Sequence[bytes]) -> bytes:
    """One byte."""
    at = max(0, min(_spot(rng, content), len(content) - 1))
    return content[:at] + rng.bytes(1) + content[at + 1 :]


def overwrite(rng: Rng, content: bytes, others: Sequence[bytes]) -> bytes:
    """A nasty piece in place of as many bytes."""
    at, piece = _spot(rng, content), NASTY[int(rng.integers(len(NASTY)))]
    return content[:at] + piece + content[at + len(piece) :]


def insert(rng: Rng, content: bytes, others: Sequence[bytes]) -> bytes:
    """A nasty piece between two bytes."""
    at = _spot(rng, content)
    return content[:at] + NASTY[int(rng.integers(len(NASTY)))] + content[at:]


def delete(rng: Rng, content: bytes, others: Sequence[bytes]) -> bytes:
    """Up to 16 bytes."""
    at = _spot(rng, content)
    return content[:at] + content[at + int(rng.integers(1, 17)) :]


def cut(rng: Rng, content: bytes, others: Sequence[bytes]) -> bytes:
    """The end."""
    return content[: int(rng.integers(len(content) + 1))]


def repeat(rng: Rng, content: bytes, others: Sequence[bytes]) -> bytes:
    """A stretch, given twice."""
    a, b = sorted((_spot(rng, content), _spot(rng, content)))
    return content[:b] + content[a:b] + content[b:]


def splice(rng: Rng, content: bytes, others: Sequence[bytes]) -> bytes:
    """The start of this one and the end of another."""
    other = others[int(rng.integers(len(others)))]
    return content[: _spot(rng, content)] + other[_spot(rng, other) :]


KINDS: tuple[Callable[[Rng, bytes, Sequence[bytes]], bytes], ...] = (
    flip, flip, change, change, overwrite, overwrite, insert, delete, cut, repeat, splice,
)  # fmt: skip


def mutated(rng: Rng, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds with one to four changes; one in twenty is left whole."""
    content = seeds[int(rng.integers(len(seeds)))]
    for _ in range(int(rng.integers(1, 5)) if rng.random() < 0.95 else 0):
        if content:
            content = KINDS[int(rng.integers(len(KINDS)))](rng, content, seeds)
    return content


def one_of(rng: Rng, choices: Sequence[object]) -> object:
    """A uniform choice."""
    return choices[int(rng.integers(len(choices)))]
