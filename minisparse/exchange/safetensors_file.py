"""The safetensors format, read strictly: one meaning for every byte of a file, or an error.

    8 bytes    length n of the header, little-endian
    n bytes    JSON: {"name": {"dtype": "F32", "shape": [..], "data_offsets": [begin, end]}, ..}, and
               optionally "__metadata__" with texts; spaces may follow
    the rest   the numbers, little-endian, row by row

Refused here and accepted by laxer readers: a name given twice, tensors that share bytes, bytes that belong to
no tensor, numbers that JSON does not have, types that no network here can use. float16 and bfloat16 become
float32, which holds them exactly.

Format: https://github.com/huggingface/safetensors, README, section "Format".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
from safetensors.numpy import save

from minisparse.exchange.limits import MAX_TENSORS, check_name, check_shape, check_size, damaged
from minisparse.nn.param import Array

MAX_HEADER = 1 << 20
METADATA = "__metadata__"
FIELDS = {"dtype", "shape", "data_offsets"}
BRAIN = "BF16"
TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", BRAIN: "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
    "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip


def parse(content: bytes, where: object) -> dict[str, Array]:
    """The tensors by name, read-only, in the order of the header. DataFormatError for anything else."""
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or not 2 <= size <= min(MAX_HEADER, len(content) - 8):
        raise damaged(where, f"a header of {size:,} bytes in {len(content):,}", "a safetensors file")
    header = _header(content[8 : 8 + size], where)
    data = memoryview(content)[8 + size :]
    _check_metadata(header.pop(METADATA, {}), where)
    if len(header) > MAX_TENSORS:
        raise damaged(where, f"{len(header):,} tensors", f"at most {MAX_TENSORS:,}")
    spans = sorted(_span(name, facts, where) for name, facts in header.items())
    at = 0
    for begin, end in spans:
        if begin != at:
            raise damaged(where, f"tensors that leave or share byte {min(begin, at):,}", "one after another")
        at = end
    if at != len(data):
        raise damaged(where, f"{len(data):,} bytes of numbers", f"{at:,} by the header")
    return {name: _tensor(name, facts, data, where) for name, facts in header.items()}


def encode(tensors: Mapping[str, Array], about: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file of these arrays, with texts about them."""
    return save(
        {key: np.array(a, order="C") for key, a in tensors.items()}, metadata=dict(about) if about else None
    )


def _header(text: bytes, where: object) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError("a name that is given twice")
        return dict(pairs)

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"the number {constant}")

    try:
        header = json.loads(text.decode(), object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise damaged(where, f"a header with {error}", "JSON") from None
    if not isinstance(header, dict) or text[:1] != b"{":
        raise damaged(where, "a header that is no object", "names of tensors")
    return header


def _check_metadata(about: Any, where: object) -> None:
    if not isinstance(about, dict) or not all(isinstance(text, str) for text in about.values()):
        raise damaged(where, "metadata that is no text", "text by name")


def _span(name: str, facts: Any, where: object) -> tuple[int, int]:
    """Checked offsets of one tensor."""
    check_name(name, where)
    if not isinstance(facts, dict) or set(facts) != FIELDS or facts["dtype"] not in list(TYPES):
        raise damaged(
            where, f"tensor '{name}' as {ascii(facts)[:60]}", f"shape, offsets, one of {', '.join(TYPES)}"
        )
    shape, offsets = facts["shape"], facts["data_offsets"]
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2:
        raise damaged(where, f"tensor '{name}' without shape or offsets", "a list and two numbers")
    check_shape(shape, name, where)
    check_shape(offsets, name, where)
    begin, end = offsets
    check_size(shape, np.dtype(TYPES[facts["dtype"]]).itemsize, end - begin, name, where)
    return begin, end


def _tensor(name: str, facts: dict[str, Any], data: memoryview, where: object) -> Array:
    begin, end = facts["data_offsets"]
    kind = facts["dtype"]
    raw = np.frombuffer(data[begin:end], dtype=np.uint8)
    if kind == "BOOL" and raw.max(initial=0) > 1:
        raise damaged(where, f"byte {raw.max()} in tensor '{name}'", "0 or 1 for BOOL")
    values: Array = raw.view(TYPES[kind]).reshape(facts["shape"])
    if kind == BRAIN:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32) if kind == "F16" else values
