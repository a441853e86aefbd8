"""The loop every method shares, and the watch it keeps over every step."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from minisparse.errors import NonFiniteError
from minisparse.methods.base import Method
from minisparse.nn.mode import EVAL
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.training.state import TrainState

Batches = Iterable[tuple[Array, Array]]
Callback = Callable[[TrainState], None]


def fit(
    state: TrainState,
    method: Method,
    batches: Batches,
    after_step: Callback = lambda state: None,
    resumed: bool = False,
) -> None:
    """Train for method.length(horizon) steps, or until the batches end.

    after_step is called when a step and its pruning are complete. resumed: the state is one that a run was
    in after any number of steps, and has been set up. Raises NonFiniteError at the step
    where the loss, a gradient or a weight stops being finite.
    """
    if state.step == 0 and not resumed:
        method.setup(state)
        after_step(state)
    last = method.length(state.horizon)
    network, loss = state.network, state.loss
    for x, target in batches:
        if state.step >= last:
            break
        method.before_forward(state)
        state.value = float(loss.value(network.forward(x, state.training()), target))
        network.backward(loss.grad(), need_dx=False)
        state.value += method.penalty(state)
        _watch_loss(state, x)
        _watch(state, "gradient")
        method.update(state)
        _watch(state, "weight")
        state.step += 1
        state.clock += 1
        method.after_update(state)
        after_step(state)
    method.finish(state)


def _watch_loss(state: TrainState, x: Array) -> None:
    """Raise NonFiniteError naming the first tensor that is not finite if the loss is not."""
    if not np.isfinite(state.value):
        raise NonFiniteError(
            f"training diverged at step {state.step}: loss is {state.value}, first non-finite tensor "
            f"{_first_bad_tensor(state.network, x)}, expected finite numbers. Try a smaller --lr."
        )


def _watch(state: TrainState, what: str) -> None:
    """Raise NonFiniteError naming the first parameter whose gradient or weight is not finite."""
    for key, p in state.network.params().items():
        array = p.grad if what == "gradient" else p.value
        flat = array.reshape(-1)
        with np.errstate(over="ignore", invalid="ignore"):
            suspicious = not np.isfinite(flat @ flat)
        # a finite sum of squares proves all entries finite; an infinite one may only be large
        if suspicious and not np.isfinite(flat).all():
            raise NonFiniteError(
                f"training diverged at step {state.step}: {what} of '{key}' has {_bad(flat)} "
                "non-finite entries, expected finite numbers. Try a smaller --lr."
            )


def _bad(array: Array) -> str:
    return f"{int((~np.isfinite(array)).sum()):,} of {array.size:,}"


def _first_bad_tensor(network: Network, x: Array) -> str:
    """The first parameter, or else the first layer's output on x, that is not finite."""
    for key, p in network.params().items():
        if not np.isfinite(p.value).all():
            return f"'{key}' ({_bad(p.value)})"
    y = x.reshape(len(x), *network.input_shape)
    for index, (name, layer) in enumerate(network.layers.items()):
        with np.errstate(all="ignore"):
            y = layer.forward(y, EVAL)
        if not np.isfinite(y).all():
            return f"the output of layer {index} '{name}' ({_bad(y)})"
    return "the loss itself"
