"""Every error minisparse raises on purpose: one line that names the thing, the value and the rule.

The text has the form ``<object> <problem>: got <value>, expected <rule>. <remedy>``. The command line
prints ``minisparse: error[<code>]: <text>`` and exits with ``exit_status``; a notebook can read the
same facts from the attributes.
"""

import difflib
from collections.abc import Iterable


class MinisparseError(Exception):
    """Base of all deliberate errors. ``code`` names the kind, ``exit_status`` is the shell's."""

    code = "MS000"
    exit_status = 1


class UsageError(MinisparseError, ValueError):
    """A setting, name or argument is not usable."""

    code = "MS100"
    exit_status = 2


class SparsityError(UsageError):
    """A sparsity is outside [0, 1), not a number, or cannot be met by the pattern or allocation."""

    code = "MS101"


class UnknownNameError(UsageError):
    """A method, model, data set or option name that does not exist."""

    code = "MS102"


class ShapeError(UsageError):
    """An array or layer has a shape that does not fit."""

    code = "MS103"


class MethodError(UsageError):
    """A method's declared needs are not met by the network or data."""

    code = "MS104"


class SparseFormatError(MinisparseError):
    """A sparse structure is not valid, or a storage format cannot hold a mask."""

    code = "MS201"
    exit_status = 2


class DataFormatError(MinisparseError):
    """A data file is missing, truncated, corrupt or inconsistent."""

    code = "MS300"
    exit_status = 3


class CheckpointError(MinisparseError):
    """A saved network is missing, damaged or not ours."""

    code = "MS302"
    exit_status = 3


class ResumeMismatchError(UsageError):
    """A run is to go on from a checkpoint of another run: a setting, the network or the data differ."""

    code = "MS502"


class NonFiniteError(MinisparseError):
    """A loss, gradient, weight or score is NaN or infinite."""

    code = "MS402"


class LayerCollapseError(MinisparseError):
    """No path of kept weights leads from the inputs to the outputs."""

    code = "MS204"


class MinisparseWarning(UserWarning):
    """Base of the warnings minisparse issues."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """``Did you mean 'x'? `` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"Did you mean '{close[0]}'? " if close else ""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """The error for a name, or for what is none, that is not among ``known`` things of this ``kind``."""
    names = sorted(known)
    listed = ", ".join(names)
    hint = suggestion(name, names) if isinstance(name, str) else ""
    return UnknownNameError(f"unknown {kind} {name!r}: expected one of {listed}. {hint}".strip())


def check_name(kind: str, name: object, known: Iterable[str]) -> str:
    """``name`` if it is one of ``known``; UnknownNameError for all else, text or not."""
    if not isinstance(name, str) or name not in known:
        raise unknown_name(kind, name, known)
    return name
