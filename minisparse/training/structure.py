"""Networks as plain data: a description in JSON's types that names arrays, and back.

    description   kinds of layers and weights by name with what their constructors take (`forms.FORMS`)
    arrays        parameters and buffers by their names in the network; masks, bases and patterns

No model is looked up by its name: a network that was cut, or put together by hand, comes back as it is, and
one in the middle of its training with the weights that its method put there, whatever the method. Nothing is
evaluated: a description can only ask for the constructors of the table, which check what they are given.

A weight in a storage format is described by its entries, see `training.entries`, and never forms a matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minisparse.errors import CheckpointError, MinisparseError, UsageError
from minisparse.nn.init import INITIALIZERS, fans, kaiming_normal
from minisparse.nn.layer import Layer
from minisparse.nn.network import Network
from minisparse.nn.param import Array, Param
from minisparse.nn.weight import MaskedWeight, Weight
from minisparse.nn.window import Window
from minisparse.training.entries import PARTS, described, from_arrays, to_arrays
from minisparse.training.forms import FORMS, NAMES, Frame, Length, Own
from minisparse.training.shelf import Shelf
from minisparse.weights.stored import StoredWeight

STORED = "stored"
PRECISIONS = ("float32", "float64")
Facts = dict[str, Any]
WRONG = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError)


def describe(network: Network, shelf: Shelf, prefix: str = "") -> Facts:
    """The description of a network, whose arrays are put on the shelf under names that start with `prefix`.

    UsageError for a layer or weight of a class that is not in the table, and for numbers that a file cannot
    hold (complex ones).
    """
    if str(network.dtype) not in PRECISIONS:
        raise UsageError(
            f"network '{network.name}' cannot be saved: got {network.dtype}, expected one of "
            f"{', '.join(PRECISIONS)}."
        )
    taker = Taker(shelf, prefix)
    layers = [[name, taker.thing(layer, name)] for name, layer in network.layers.items()]
    params = network.params()
    for key, p in params.items():
        if key not in taker.done:
            shelf.put(prefix + key, p.value)
    for key, buffer in network.buffers().items():
        shelf.put(prefix + key, buffer)
    return {
        "name": network.name,
        "input_shape": list(network.input_shape),
        "dtype": str(network.dtype),
        "init": next((name for name, init in INITIALIZERS.items() if init is network.init), None),
        "layers": layers,
        "rates": {key: float(p.rate) for key, p in params.items() if p.rate != 1},
        "undecayed": [key for key, p in params.items() if not p.decay],
    }


@dataclass
class Taker:
    """Takes layers and weights apart; `done` are parameters that are on the shelf already."""

    shelf: Shelf
    prefix: str
    done: set[str] = field(default_factory=set)

    def thing(self, thing: Layer | Weight, at: str) -> Facts:
        """The description of one layer or weight; `at` is the dotted name of the layer."""
        if isinstance(thing, StoredWeight):
            return self.entries(thing, at)
        name = NAMES.get(type(thing))
        if name is None:
            raise UsageError(
                f"layer '{at}' cannot be saved: got {type(thing).__name__}, expected one of "
                f"{', '.join(kind.__name__ for kind in NAMES)}."
            )
        try:
            arguments = {key: read(thing) for key, read in FORMS[name].arguments.items()}
        except AttributeError as error:
            raise UsageError(
                f"layer '{at}' cannot be saved: got {type(thing).__name__} made in another way than methods "
                f"make it ({error}), expected one of theirs."
            ) from None
        return {"kind": name} | {key: self.value(value, at, key) for key, value in arguments.items()}

    def value(self, value: Any, at: str, key: str) -> Any:
        """An argument in JSON's types."""
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, Weight):
            return self.thing(value, at)
        if isinstance(value, Layer):
            return self.thing(value, f"{at}.{key}")
        if isinstance(value, dict):
            return [[name, self.thing(layer, f"{at}.{name}")] for name, layer in value.items()]
        if isinstance(value, Param):
            return {"param": f"{at}.{key}"}
        if isinstance(value, Own):
            return {"param": f"{at}.{value.key}"}
        if isinstance(value, Length):
            return {"length": f"{at}.{value.key}"}
        if isinstance(value, Frame):
            mask = self.shelf.put(f"{self.prefix}{at}.frame", value.mask)
            return {"geometry": list(value.geometry), "mask": mask}
        if isinstance(value, Window):
            return {"window": value.array.tolist()}
        if isinstance(value, tuple):
            return [int(part) for part in value]
        return {"array": self.shelf.put(f"{self.prefix}{at}.{key}", value)}

    def entries(self, weight: StoredWeight, at: str) -> Facts:
        """A weight in a storage format."""
        try:
            facts = described(weight)
        except CheckpointError as error:
            raise UsageError(f"layer '{at}' cannot be saved: {error}") from None
        self.done.add(f"{at}.weight")
        refs = {part: self.shelf.put(f"{self.prefix}{at}.{part}", a) for part, a in to_arrays(weight).items()}
        return {"kind": STORED, "format": facts, "geometry": list(weight.geometry), "arrays": refs}


def build(facts: Facts, shelf: Shelf, prefix: str = "") -> Network:
    """The network of a description and the arrays on the shelf. CheckpointError unless they fit."""
    try:
        if facts["dtype"] not in PRECISIONS:
            raise CheckpointError(f"does not fit: got {facts['dtype']!r}, expected one of {PRECISIONS}.")
        dtype = np.dtype(facts["dtype"])
        maker = Maker(shelf, prefix, dtype)
        layers = maker.layers(facts["layers"])
        network = Network(layers, tuple(map(int, facts["input_shape"])), str(facts["name"]))
        _put_back(network, maker)
        if not network.params():
            raise CheckpointError("does not fit: got a network without parameters, expected some.")
        for key, p in network.params().items():
            p.rate, p.decay = float(facts["rates"].get(key, 1)), key not in facts["undecayed"]
        network.init = kaiming_normal if facts["init"] is None else INITIALIZERS[facts["init"]]
    except CheckpointError:
        raise
    except (MinisparseError, *WRONG) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"does not fit: got a description with {text}, expected another.") from None
    return network


@dataclass
class Maker:
    """Puts layers and weights together; `done` are parameters that are right already."""

    shelf: Shelf
    prefix: str
    dtype: np.dtype
    done: set[str] = field(default_factory=set)

    def layers(self, facts: list[list[Any]]) -> dict[str, Layer]:
        """Layers by name; names are unique."""
        made = {str(name): self.thing(part) for name, part in facts}
        if len(made) < len(facts) or not all(isinstance(layer, Layer) for layer in made.values()):
            raise CheckpointError("does not fit: got layers of equal names, expected one of each name.")
        return made

    def thing(self, facts: Facts) -> Any:
        """One layer or weight."""
        if facts["kind"] == STORED:
            return self.entries(facts)
        row = FORMS[facts["kind"]]
        if set(facts) != {"kind", *row.arguments}:
            raise CheckpointError(f"does not fit: got {sorted(facts)}, expected {sorted(row.arguments)}.")
        return row.build(**{key: self.value(facts[key]) for key in row.arguments})

    def value(self, facts: Any) -> Any:
        """An argument; of objects the first key says what they are."""
        if isinstance(facts, list):
            return self.layers(facts) if facts and isinstance(facts[0], list) else tuple(facts)
        if not isinstance(facts, dict):
            return facts
        if "kind" in facts:
            return self.thing(facts)
        if set(facts) == {"geometry", "mask"}:
            return self.frame(facts)
        ((kind, content),) = facts.items()
        return READ[kind](self, content)

    def frame(self, facts: Facts) -> MaskedWeight:
        """A masked weight of zeros."""
        mask = self.shelf.take(facts["mask"])
        return MaskedWeight(np.zeros(mask.shape, dtype=self.dtype), tuple(facts["geometry"]), mask)

    def entries(self, facts: Facts) -> StoredWeight:
        """A weight in a storage format."""
        at = str(facts["arrays"]["weight"]).removeprefix(self.prefix).rpartition(".")[0]
        arrays = {f"{at}.{part}": self.shelf.take(facts["arrays"][part]) for part in PARTS}
        geometry = _geometry(facts["geometry"])
        self.done.add(f"{at}.weight")
        return from_arrays(at, facts["format"], geometry, arrays, self.dtype)


def _geometry(numbers: list[int]) -> tuple[int, int, int, int]:
    out, channels, kh, kw = (int(n) for n in numbers)
    if min(out, channels, kh, kw) < 1 or out * fans((out, channels, kh, kw))[0] >= 1 << 62:
        raise CheckpointError(f"does not fit: got a layer of geometry {numbers}, expected sizes >= 1.")
    return out, channels, kh, kw


READ: dict[str, Callable[[Maker, Any], Any]] = {
    "param": lambda maker, key: maker.shelf.take(maker.prefix + key),
    "length": lambda maker, key: len(maker.shelf.take(maker.prefix + key)),
    "array": lambda maker, ref: maker.shelf.take(ref),
    "window": lambda maker, n: Window.of((n[0], n[1]), (n[2], n[3]), (n[4], n[5]), (n[6], n[7])),
}


def _put_back(network: Network, maker: Maker) -> None:
    """Parameters and buffers by name, each of the shape and type it must have."""
    for key, p in network.params().items():
        if key not in maker.done:
            array = maker.shelf.take(maker.prefix + key)
            _check(key, array, p.value.shape)
            p.set(array)
    for name, layer in network.walk():
        for key, buffer in layer.buffers().items():
            array = maker.shelf.take(f"{maker.prefix}{name}.{key}")
            _check(f"{name}.{key}", array, buffer.shape)
            setattr(layer, key, array)


def _check(key: str, array: Array, shape: tuple[int, ...]) -> None:
    if array.shape != shape or str(array.dtype) not in PRECISIONS:
        raise CheckpointError(
            f"does not fit: got array '{key}' {array.dtype} of shape {array.shape}, expected one of "
            f"{', '.join(PRECISIONS)} of shape {shape}."
        )
