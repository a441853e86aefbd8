"""Training in a storage format: from the moment a layer is sparse it holds its present entries only.

A layer without absent entries is a matrix, every other one is stored as asked for. Formats change where a
method has pruned (or regrown) a layer, between two steps; values, gradient and optimiser slots move with
the entries, so the course of the training is that of masked matrices but for the order of sums.

    W as masked matrix  <->  (flat, w), w = W[flat]  <->  slots of the format             (1)
"""

from __future__ import annotations

from minisparse.errors import MethodError, SparseFormatError, unknown_name
from minisparse.methods.base import Method
from minisparse.nn.param import Array
from minisparse.nn.weight import MaskedWeight, Weight
from minisparse.training.state import TrainState
from minisparse.weights.formats import FORMATS, MASKED, convert
from minisparse.weights.stored import StoredWeight

NAMES: dict[type[Weight], str] = {MaskedWeight: MASKED} | {kind: name for name, kind in FORMATS.items()}


def format_of(weight: Weight) -> str | None:
    """Name of the format a weight is stored in, "masked" for a matrix; None for a reparametrised weight."""
    return NAMES.get(type(weight))


def layout(storage: str | None) -> str | None:
    """The storage, and which of the layouts that its entries have had in optimiser slots, if several.

    A snapshot of another layout is that of another run.
    """
    number = FORMATS[storage].layout if storage in FORMATS else 1
    return storage if number == 1 else f"{storage}, layout {number}"


def check_storage(storage: str | None, method: Method, horizon: int) -> None:
    """UnknownNameError for no format; MethodError for a method that goes back to earlier, dense weights."""
    if storage is None:
        return
    if storage not in (MASKED, *FORMATS):
        raise unknown_name("storage", storage, [MASKED, *FORMATS])
    if storage != MASKED and method.length(horizon) != horizon:
        raise MethodError(
            f"method {type(method).__name__} cannot train in storage '{storage}': got weights that are "
            "rewound, expected one training from first to last step. Use storage 'masked'."
        )


def adopt_first(state: TrainState, storage: str, method: Method) -> None:
    """`adopt` before the first step; MethodError if the method trains weights that are not entries."""
    for name, layer in state.network.prunable().items():
        if storage != MASKED and format_of(layer.weight) is None:
            raise MethodError(
                f"method {type(method).__name__} cannot train in storage '{storage}': got "
                f"{type(layer.weight).__name__} in layer '{name}', expected a weight whose parameters are "
                "its entries. Use storage 'masked'."
            )
    adopt(state, storage)


def adopt(state: TrainState, storage: str) -> None:
    """Store each layer that has absent entries in this format, each that has none as a matrix.

    Reparametrised weights stay as they are. SparseFormatError, naming the layer, where the format cannot
    store a mask.
    """
    for name, layer in state.network.prunable().items():
        weight, now = layer.weight, format_of(layer.weight)
        if now is None or now == storage == MASKED:
            continue
        wanted = MASKED if weight.kept == weight.size else storage
        if now != wanted:
            try:
                layer.weight = convert(weight, wanted)
            except SparseFormatError as error:
                raise SparseFormatError(f"layer '{name}', {error}") from None
            move(state, name, weight, layer.weight)


def move(state: TrainState, name: str, old: Weight, new: Weight) -> None:
    """Give `new` the gradient of `old`, and its optimiser slots; both hold the same entries."""
    (param,) = new.params().values()
    param.grad[...] = new.place(old.grads)["weight"]
    slots = state.optimizer.slots.get(f"{name}.weight", {})
    for key, slot in slots.items():
        slots[key] = new.place(numbers(old, slot))["weight"]


def numbers(weight: Weight, laid: Array) -> Array:
    """(kept,) numbers of the present entries, row by row, from an array laid out as the weight's Param."""
    flat = laid.reshape(-1)
    places = weight.rows()[1] if isinstance(weight, StoredWeight) else weight.flat
    return flat if places is None else flat[places]
