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
from minisparse.sparsity.count import check_sparsity, kept_count
from minisparse.sparsity.explicit import Explicit
from minisparse.sparsity.parse import parse_allocation, parse_pattern, parse_schedule, to_text
from minisparse.sparsity.pattern import NM, Block, Column, InChannel, Pattern, Row, Unstructured
from minisparse.sparsity.schedule import Cubic, Exponential, Linear, OneShot, Rounds, Schedule
from minisparse.sparsity.select import check_scores, select, top_k
from minisparse.sparsity.shape import LayerShape

__all__ = [
    "ERK",
    "NM",
    "Allocation",
    "Block",
    "Column",
    "Cubic",
    "EqualPerLayer",
    "ErdosRenyi",
    "Explicit",
    "Exponential",
    "FirstDense",
    "FirstLast",
    "Global",
    "InChannel",
    "LayerShape",
    "Linear",
    "OneShot",
    "Pattern",
    "Rounds",
    "Row",
    "Schedule",
    "Uniform",
    "Unstructured",
    "check_scores",
    "check_sparsity",
    "kept_count",
    "parse_allocation",
    "parse_pattern",
    "parse_schedule",
    "select",
    "to_text",
    "top_k",
]
