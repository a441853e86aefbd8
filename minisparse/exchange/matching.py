"""Which module of a state_dict is which layer: by name, by names of well-known code, or by shape and number.

1. what the caller says
2. our own names, 'block1_1.conv1', and those of residual networks elsewhere, 'layer1.0.conv1'
3. modules of equal shapes are told apart by the numbers in their names: 'features.0', 'features.10'.
   The order of a file or dict is not trusted: safetensors sorts 'features.10' before 'features.2'.
   If such names differ in more than numbers, nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from minisparse.errors import DataFormatError, UsageError
from minisparse.nn.layer import Shape

Shapes = Mapping[str, Shape]  # tensor of a module -> shape, kernels of 1x1 without their two axes
Kind = tuple[Shape, bool]

STATISTICS = "running_mean"
NUMBER = re.compile(r"\d+")
# Prefixes of wrappers, and of layer names in the ResNets for CIFAR that 'centre' of `padding` is for.
DROPPED = re.compile(r"(?:^|(?<=\.))(module\.|_orig_mod\.|compressible_)")
BLOCK = re.compile(r"layer(\d+)\.(\d+)\.((?:conv|bn)\d+)")
CLASSIFIER = {"linear": "fc"}


def plain(name: str) -> str:
    """Our name of a layer as state dicts have it: 'block1_1.branch.conv1' is 'block1_1.conv1'."""
    return name.replace(".branch.", ".")


def translated(name: str) -> str:
    """A module's name as we would call it; a name that is not known comes back as it is."""
    short = plain(DROPPED.sub("", name))
    if block := BLOCK.fullmatch(short):
        stage, number, part = block.groups()
        return f"block{stage}_{int(number) + 1}.{part}"
    return short


def match(
    ours: Mapping[str, Shapes], theirs: Mapping[str, Shapes], names: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Our layer -> their module, one for one. DataFormatError naming what has no partner, or several.

    names: pairs that are known, checked like the others. UsageError if they name what does not exist.
    """
    pairs = _given(dict(names or {}), ours, theirs)
    left = {name: shapes for name, shapes in ours.items() if name not in pairs}
    free = {name: shapes for name, shapes in theirs.items() if name not in pairs.values()}
    pairs |= _by_name(left, free) or _by_shape(left, free)
    return {name: pairs[name] for name in ours}


def _given(names: dict[str, str], ours: Iterable[str], theirs: Iterable[str]) -> dict[str, str]:
    for said, known, kind in ((names.keys(), list(ours), "layer"), (names.values(), list(theirs), "module")):
        odd = [name for name in said if name not in known]
        if odd:
            raise UsageError(f"names: got {kind} {odd[0]!r}, expected one of {', '.join(known)}.")
    if len(set(names.values())) < len(names):
        raise UsageError(f"names: got {sorted(names.values())}, expected each module once.")
    return names


def _by_name(ours: Mapping[str, Shapes], theirs: Mapping[str, Shapes]) -> dict[str, str]:
    """Pairs if every name has its partner, else none."""
    found = {translated(name): name for name in theirs}
    found |= {CLASSIFIER[name]: found[name] for name in CLASSIFIER if name in found and name not in ours}
    whole = {plain(name) for name in ours} <= set(found) and len(ours) == len(theirs)
    return {name: found[plain(name)] for name in ours} if whole else {}


def _by_shape(ours: Mapping[str, Shapes], theirs: Mapping[str, Shapes]) -> dict[str, str]:
    a, b = _kinds(ours), _kinds(theirs)
    missing = [kind for kind in a for _ in range(len(a[kind]) - len(b.get(kind, ())))]
    extra = [kind for kind in b for _ in range(len(b[kind]) - len(a.get(kind, ())))]
    if missing or extra:
        raise _unpaired(a, b, missing, extra)
    pairs: dict[str, str] = {}
    for kind, layers in a.items():
        patterns = {NUMBER.sub("#", name): name for name in b[kind]}
        if len(patterns) > 1:
            listed = ", ".join(f"'{name}'" for name in list(patterns.values())[:3])
            raise DataFormatError(
                f"tensors of shape {kind[0]} cannot be told apart: got modules {listed}, expected names that "
                "differ in numbers only. Say which is which by names={layer: module}."
            )
        numbered = sorted(b[kind], key=lambda name: [int(n) for n in NUMBER.findall(name)])
        pairs |= dict(zip(layers, numbered, strict=True))
    return pairs


def _kinds(modules: Mapping[str, Shapes]) -> dict[Kind, list[str]]:
    """Names of modules by the shape of their weight, normalisations apart."""
    found: dict[Kind, list[str]] = {}
    for name, shapes in modules.items():
        found.setdefault((shapes.get("weight", ()), STATISTICS in shapes), []).append(name)
    return found


def _unpaired(
    ours: Mapping[Kind, list[str]], theirs: Mapping[Kind, list[str]], missing: list[Kind], extra: list[Kind]
) -> DataFormatError:
    """The error for layers without a module and modules without a layer: the most similar pair of them."""
    if not extra:
        layer = ours[missing[0]][-1]
        return DataFormatError(
            f"tensor for layer '{layer}' is missing: got none, expected a weight of shape {missing[0][0]}."
        )
    alike = [(a, b) for b in extra for a in missing if (len(a[0]), a[1]) == (len(b[0]), b[1])]
    want, have = alike[0] if alike else (None, extra[0])
    tensor = f"{theirs[have][-1]}.weight"
    if want is None:
        return DataFormatError(
            f"tensor '{tensor}' has no place in the model: got shape {have[0]}, expected no more such."
        )
    return DataFormatError(
        f"tensor '{tensor}' does not fit: got shape {have[0]}, expected {want[0]} as of layer "
        f"'{ours[want][-1]}'. Check the model and the size of its images."
    )
