"""The sample that each round of pruning at initialisation is scored on."""

from __future__ import annotations

from dataclasses import replace

from minisparse.nn.param import Array
from minisparse.training.state import TrainState

FRESH = "score every round on other samples; if not, all on the probe sample"


def round_sample(state: TrainState) -> tuple[Array, Array]:
    """(x, target) of the coming round: first the probe sample, then another draw for every round.

    A later round takes as many training samples as the probe has (or all, if there are fewer), at random.
    Rounds are counted by `state.topology`.
    """
    if state.topology == 0:
        return state.probe_x, state.probe_t
    rng = state.rng(f"pruning round {state.topology}")
    rows = rng.permutation(len(state.train_x))[: len(state.probe_x)]
    return state.train_x[rows], state.train_t[rows]


def round_gradients(state: TrainState, fresh: bool = True) -> dict[str, Array]:
    """dL/dW (out, in) of each prunable layer on the round's sample, absent entries included.

    Unless `fresh`, all rounds take the probe sample.
    """
    x, target = round_sample(state) if fresh else (state.probe_x, state.probe_t)
    return replace(state, probe_x=x, probe_t=target).probe_gradients()
