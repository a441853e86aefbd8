"""Dense training: nothing is removed; the reference every sparse network is compared with."""

from dataclasses import dataclass

from minisparse.methods.base import Method
from minisparse.methods.registry import register


@register("dense", family="control", paper="none")
@dataclass(frozen=True)
class Dense(Method):
    """No pruning."""
