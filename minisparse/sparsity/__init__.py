"""Choosing what to keep, on plain arrays: scores x schedule x allocation x pattern -> masks."""

from minisparse.sparsity.allocation import (
    ERK,
    Allocation,
    EqualPerLayer,
    ErdosRenyi,
    FirstDense,
    FirstLast,
    Global,
    Uniform,
)
from minisparse.sparsity.control import Control, Invert, Reinit, Shuffle, Untouched, combine
from minisparse.sparsity.count import check_sparsity, kept_count
from minisparse.sparsity.explicit import Explicit
from minisparse.sparsity.parse import (
    parse_allocation,
    parse_control,
    parse_pattern,
    parse_schedule,
    to_text,
)
from minisparse.sparsity.pattern import NM, Block, Column, InChannel, Pattern, Row, Unstructured
from minisparse.sparsity.schedule import Cubic, Exponential, Linear, OneShot, Rounds, Schedule, Steady
from minisparse.sparsity.select import check_scores, select, top_k
from minisparse.sparsity.shape import LayerShape
from minisparse.sparsity.slow_last import SlowLast

__all__ = [
    "ERK",
    "NM",
    "Allocation",
    "Block",
    "Column",
    "Control",
    "Cubic",
    "EqualPerLayer",
    "ErdosRenyi",
    "Explicit",
    "Exponential",
    "FirstDense",
    "FirstLast",
    "Global",
    "InChannel",
    "Invert",
    "LayerShape",
    "Linear",
    "OneShot",
    "Pattern",
    "Reinit",
    "Rounds",
    "Row",
    "Schedule",
    "Shuffle",
    "SlowLast",
    "Steady",
    "Uniform",
    "Unstructured",
    "Untouched",
    "check_scores",
    "check_sparsity",
    "combine",
    "kept_count",
    "parse_allocation",
    "parse_control",
    "parse_pattern",
    "parse_schedule",
    "select",
    "to_text",
    "top_k",
]
