"""Files that a crash leaves whole or not there, and manifests that prove what belongs to them.

Writing goes temporary file -> flush -> fsync -> os.replace -> fsync of the folder. A manifest is a JSON
object with one spelling: sorted keys, and the SHA-256 of all its other fields. Arrays are safetensors files
that carry their digest in the name, so that no new one ever overwrites one that a manifest still names:
putting the manifest in its place is the one moment at which a new checkpoint comes to be.

Reading trusts nothing: sizes and digests are verified before anything is parsed, and a manifest must be byte
for byte what its content encodes to. Nothing is unpickled or evaluated. Every damage is a CheckpointError
that names the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as tensors

from minisparse.errors import CheckpointError
from minisparse.nn.param import Array

TEMPORARY = ".minisparse-tmp"
MAX_MANIFEST = 1 << 22
MAX_BYTES = 4 << 30
Folder = str | os.PathLike[str]
Facts = dict[str, Any]


def write_atomic(path: Path, content: bytes) -> None:
    """Put `content` at `path` so that a crash leaves the old file or the new one, never a mixture."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        with open(temporary, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # the system does not say which file it could not write
        raise


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; a folder cannot be opened for this on Windows, which needs no such call."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep_temporary(folder: Path) -> None:
    """Remove temporary files of this process, and of processes on this machine that are no more."""
    for path in folder.glob("*" + TEMPORARY):
        owner = path.name.removesuffix(TEMPORARY).rpartition(".")[2]
        if owner.isdecimal() and (int(owner) == os.getpid() or not _alive(int(owner))):
            with contextlib.suppress(OSError):
                path.unlink()


def _alive(process: int) -> bool:
    """Whether such a process runs on this machine; True where that cannot be asked without harm."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def sweep(folder: Path, pattern: str, besides: Iterable[str] = ()) -> None:
    """Remove what crashes and earlier checkpoints left behind; a file that resists is left alone."""
    stay = set(besides)
    for path in folder.glob(pattern):
        if path.name not in stay:
            with contextlib.suppress(OSError):
                path.unlink()


def encode(facts: Mapping[str, Any]) -> bytes:
    """The one text of a manifest: sorted, ASCII, with the SHA-256 of all other fields."""
    text = json.dumps(facts, sort_keys=True, allow_nan=False)
    sealed = {**facts, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    return (json.dumps(sealed, sort_keys=True, allow_nan=False, indent=1) + "\n").encode()


def decode(path: Path, content: bytes, kind: str, newest: int) -> Facts:
    """The fields of a manifest of this kind, verified against its own digest, which is left out.

    CheckpointError, naming `path`, for anything else and for a format number above `newest`.
    """
    try:
        facts = json.loads(content)
        number = facts["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise damaged(path, "no readable format number", "a manifest") from None
    if type(number) is int and number > newest:
        raise CheckpointError(
            f"checkpoint '{path}' is newer than this program: got format {number}, expected at most "
            f"{newest}. Update minisparse."
        )
    try:
        del facts["sha256"]
        whole = encode(facts) == content and facts["kind"] == kind and type(number) is int and number > 0
    except (ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise torn(path)
    return facts


def torn(path: Path) -> CheckpointError:
    """The error for a manifest that is not as it was written."""
    return damaged(path, "content that differs from its own SHA-256", "the manifest as written")


def read(path: Path, limit: int) -> bytes:
    """The content of a file of at most `limit` bytes."""
    try:
        if path.stat().st_size > limit:
            raise damaged(path, f"{path.stat().st_size:,} bytes", f"at most {limit:,}")
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"checkpoint '{path}' cannot be read: got {error.strerror or error}, expected a readable "
            "file. Run it again to save it anew."
        ) from None


def write_arrays(folder: Path, stem: str, arrays: Mapping[str, Array]) -> dict[str, Facts]:
    """Write arrays to <stem>-<digest>.safetensors; the file's name -> its size and SHA-256."""
    content = tensors.save({key: np.asarray(arrays[key], order="C") for key in sorted(arrays)})
    digest = hashlib.sha256(content).hexdigest()
    name = f"{stem}-{digest[:16]}.safetensors"
    write_atomic(folder / name, content)
    return {name: {"sha256": digest, "size": len(content)}}


def read_arrays(folder: Path, files: Mapping[str, Facts]) -> tuple[Path, dict[str, Array]]:
    """The one file of a manifest, see `plausible_files`, and its arrays."""
    ((name, facts),) = files.items()
    path = folder / name
    try:
        return path, tensors.load(_verified(path, facts))
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise damaged(path, f"{error}", "a safetensors file") from None


def plausible_files(files: Any) -> bool:
    """Whether these are the facts of one file, whose name stays in the folder."""
    return len(files) == 1 and all(
        Path(name).name == name and type(facts["size"]) is int and isinstance(facts["sha256"], str)
        for name, facts in files.items()
    )


def _verified(path: Path, facts: Mapping[str, Any]) -> bytes:
    content = read(path, min(MAX_BYTES, facts["size"]))
    if len(content) != facts["size"]:
        raise damaged(path, f"{len(content):,} bytes", f"{facts['size']:,}")
    digest = hashlib.sha256(content).hexdigest()
    if digest != facts["sha256"]:
        raise damaged(path, f"SHA-256 {digest[:16]}...", f"{facts['sha256'][:16]}... by the manifest")
    return content


def damaged(path: Path, got: str, expected: str) -> CheckpointError:
    """The error for a file that is not what was written."""
    return CheckpointError(
        f"checkpoint '{path}' is damaged: got {got}, expected {expected}. Run it again to save it anew."
    )
