"""The loop every method shares, and the watch it keeps over every step."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from minisparse.errors import NonFiniteError
from minisparse.methods.base import Method
from minisparse.nn.param import Array
from minisparse.training.state import TrainState

Batches = Iterable[tuple[Array, Array]]
Callback = Callable[[TrainState], None]


def fit(
    state: TrainState,
    method: Method,
    batches: Batches,
    after_step: Callback = lambda state: None,
) -> None:
    """Train for method.length(horizon) steps, or until the batches end.

    after_step is called when a step and its pruning are complete. Raises NonFiniteError at the step
    where the loss, a gradient or a weight stops being finite.
    """
    if state.step == 0:
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
        _watch(state, "gradient")
        method.update(state)
        _watch(state, "weight")
        state.step += 1
        state.clock += 1
        method.after_update(state)
        after_step(state)
    method.finish(state)


def _watch(state: TrainState, what: str) -> None:
    """Raise NonFiniteError naming the first parameter that is not finite."""
    if not np.isfinite(state.value):
        name = _first_bad_output(state)
        raise NonFiniteError(
            f"training diverged at step {state.step}: loss is {state.value}, first non-finite tensor "
            f"{name}, expected finite numbers. Try a smaller --lr."
        )
    for key, p in state.network.params().items():
        array = p.grad if what == "gradient" else p.value
        flat = array.reshape(-1)
        with np.errstate(over="ignore", invalid="ignore"):
            suspicious = not np.isfinite(flat @ flat)
        # a finite sum of squares proves all entries finite; an infinite one may only be large
        if suspicious and not np.isfinite(flat).all():
            count = int((~np.isfinite(flat)).sum())
            raise NonFiniteError(
                f"training diverged at step {state.step}: {what} of '{key}' has {count:,} of "
                f"{flat.size:,} non-finite entries, expected finite numbers. Try a smaller --lr."
            )


def _first_bad_output(state: TrainState) -> str:
    for key, p in state.network.params().items():
        if not np.isfinite(p.value).all():
            return f"'{key}'"
    return "the outputs"
