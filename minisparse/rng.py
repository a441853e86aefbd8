"""Randomness by name: every draw comes from (seed, purpose, epoch, step), never from call order.

Two places that draw for different purposes can be reordered, skipped or resumed without disturbing
each other, and a run can be continued from any step without replaying the steps before it.
"""

from zlib import crc32

from numpy.random import PCG64, Generator, SeedSequence


def generator(seed: int, purpose: str, epoch: int = 0, step: int = 0) -> Generator:
    """Independent generator for one purpose at one moment; equal arguments give equal draws."""
    key = (crc32(purpose.encode()), epoch, step)
    return Generator(PCG64(SeedSequence(seed, spawn_key=key)))
