"""Files of named arrays: safetensors and npz, told apart by their ending."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from minisparse.errors import DataFormatError, UsageError
from minisparse.exchange import npz_file, safetensors_file
from minisparse.exchange.limits import MAX_BYTES, content
from minisparse.nn.param import Array
from minisparse.training.checkpoint import write_atomic

Texts = Mapping[str, str] | None
# ending -> (bytes and what to call them in errors -> arrays, arrays and texts about them -> bytes)
KINDS: dict[
    str, tuple[Callable[[bytes, object], dict[str, Array]], Callable[[Mapping[str, Array], Texts], bytes]]
] = {
    ".safetensors": (safetensors_file.parse, safetensors_file.encode),
    ".npz": (npz_file.parse, npz_file.encode),
}


def read(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> dict[str, Array]:
    """The arrays of a .safetensors or .npz file by name.

    DataFormatError for a file that is missing, larger than `max_bytes`, damaged, or of another kind.
    Nothing is unpickled.
    """
    ending = Path(path).suffix
    if ending not in KINDS:
        raise DataFormatError(
            f"weights file '{os.fspath(path)}': got ending {ending!r}, expected one of {', '.join(KINDS)}. "
            "From PyTorch: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
        )
    return KINDS[ending][0](content(path, max_bytes), path)


def write(tensors: Mapping[str, Array], path: str | os.PathLike[str], about: Texts = None) -> None:
    """Write arrays as the ending of `path` says, whole or not at all; about: texts, for safetensors only.

    UsageError for another ending, OSError if the disk refuses.
    """
    ending = Path(path).suffix
    if ending not in KINDS:
        raise UsageError(
            f"weights file '{os.fspath(path)}': got ending {ending!r}, expected one of {', '.join(KINDS)}."
        )
    write_atomic(Path(path), KINDS[ending][1](tensors, about))
