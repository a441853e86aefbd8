"""What layers and weights are made of: the table by which `training.structure` takes them apart and together.

A row names the arguments of a constructor and how each is read off the object; an argument that has no reader
is the attribute of the same name. Numbers that are trained, or gathered while training, are not arguments:
they are `params` and `buffers`, and are put back by name.

    Own(key)            the argument is the parameter of this key
    Length(key)         the argument is how long that parameter is
    Frame(shape, mask)  the argument is a masked weight of which only geometry and mask count
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from minisparse.errors import ShapeError
from minisparse.nn.activation import Activation
from minisparse.nn.all_relu import AllReLU
from minisparse.nn.conv import Conv2d
from minisparse.nn.init import Geometry
from minisparse.nn.linear import Linear
from minisparse.nn.norm import BatchNorm1d, BatchNorm2d
from minisparse.nn.param import Array
from minisparse.nn.pool import AvgPool2d, Dropout, Flatten, GlobalAvgPool, MaxPool2d
from minisparse.nn.residual import Residual, Sequence, SubsamplePad
from minisparse.nn.weight import MaskedWeight, Weight
from minisparse.sparsity.parse import parse_pattern, to_text
from minisparse.sparsity.shape import LayerShape
from minisparse.weights.dct import DCTWeight
from minisparse.weights.factored import FactoredWeight
from minisparse.weights.hard_concrete import HardConcreteWeight
from minisparse.weights.movement import MovementWeight
from minisparse.weights.powerprop import PowerWeight
from minisparse.weights.soft_threshold import SoftThresholdWeight
from minisparse.weights.straight_through import RefinedWeight
from minisparse.weights.two_mask import TwoMaskWeight
from minisparse.weights.variational import VariationalWeight

Reader = Callable[[Any], Any]


@dataclass(frozen=True)
class Own:
    """The parameter of this key."""

    key: str


@dataclass(frozen=True)
class Length:
    """The length of the parameter of this key."""

    key: str


@dataclass(frozen=True)
class Frame:
    """A masked weight without its values."""

    geometry: Geometry
    mask: Array


@dataclass(frozen=True)
class Form:
    """One class: its constructor's arguments with their readers, and what calls the constructor."""

    kind: type
    arguments: dict[str, Reader]
    build: Callable[..., Any]


def attribute(name: str) -> Reader:
    return lambda thing: getattr(thing, name)


def form(kind: type, names: str = "", build: Callable[..., Any] | None = None, **readers: Reader) -> Form:
    """names: arguments that are attributes of the same name; readers: all others."""
    arguments = {name: attribute(name) for name in names.split()} | readers
    return Form(kind, arguments, build or kind)


def own(key: str) -> Reader:
    return lambda thing: Own(key)


def constant(value: float) -> Reader:
    """An argument that decides nothing but initial values."""
    return lambda thing: value


def imposed(weight: Any) -> Frame:
    """What a reparametrised weight stands in for: the mask that `rewire` imposed."""
    return Frame(weight.geometry, weight.carrier.mask)


def gated(weight: Any) -> Frame:
    """The same of a weight whose gates `rewire` sets."""
    return Frame(weight.geometry, weight.gate)


def two_masks(weight: Weight, backward: Array) -> TwoMaskWeight:
    made = TwoMaskWeight(weight)
    if backward.shape != made.shape or backward.dtype != bool:
        raise ShapeError(f"mask: got {backward.dtype} {backward.shape}, expected bool {made.shape}.")
    made.backward = backward
    return made


def unit_of(weight: Any) -> str:
    """The pattern whose units have the gates, as text."""
    return to_text(weight.spread.func.__self__)


def hard_concrete(weight: Weight, log_a: Array, unit: str) -> HardConcreteWeight:
    pattern, shape = parse_pattern(unit), LayerShape(*weight.geometry)
    if pattern.sizes(shape).shape != log_a.shape:
        raise ShapeError(f"gates: got {log_a.shape}, expected one for each {unit} of {shape}.")
    spread, total = (partial(f, shape=shape) for f in (pattern.spread, pattern.total))
    return HardConcreteWeight(weight, log_a, spread, total, rate=1.0)


def some_mask(weight: Any) -> Array | None:
    return None if weight.kept == weight.size else weight.mask


FORMS: dict[str, Form] = {
    "linear": form(Linear, "weight bias"),
    "conv2d": form(Conv2d, "weight window bias"),
    "activation": form(Activation, "name"),
    "all-relu": form(AllReLU, "depth alpha"),
    "batchnorm1d": form(BatchNorm1d, "momentum eps", channels=lambda norm: Length("weight")),
    "batchnorm2d": form(BatchNorm2d, "momentum eps", channels=lambda norm: Length("weight")),
    "maxpool2d": form(MaxPool2d, "window"),
    "avgpool2d": form(AvgPool2d, "window"),
    "global-avgpool": form(GlobalAvgPool),
    "flatten": form(Flatten),
    "dropout": form(Dropout, "rate"),
    "sequence": form(Sequence, "layers"),
    "residual": form(Residual, "branch shortcut"),
    "subsample-pad": form(SubsamplePad, "stride channels"),
    "masked": form(MaskedWeight, "geometry", value=own("weight"), mask=some_mask),
    "factored": form(FactoredWeight, "left right geometry", core=own("core")),
    "dct": form(DCTWeight, "sparse"),
    "movement": form(MovementWeight, weight=gated, rate=constant(1.0)),
    "refined": form(RefinedWeight, "decay", weight=gated),
    "two-mask": form(TwoMaskWeight, "backward", two_masks, weight=gated),
    "power": form(PowerWeight, "alpha", weight=imposed),
    "soft-threshold": form(SoftThresholdWeight, weight=imposed, initial=constant(0.0)),
    "hard-concrete": form(
        HardConcreteWeight, build=hard_concrete, weight=imposed, log_a=own("log_a"), unit=unit_of
    ),
    "variational": form(
        VariationalWeight, "threshold", weight=imposed, log_sigma2=constant(0.0), rate=constant(1.0)
    ),
}
NAMES: dict[type, str] = {row.kind: name for name, row in FORMS.items()}
