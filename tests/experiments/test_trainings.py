"""Trainings are made once: what is kept, found again, gone on from, and told of on the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minisparse.errors import NonFiniteError
from minisparse.experiments import trainings
from minisparse.experiments.connectivity import stability
from minisparse.experiments.realigned import alignments
from minisparse.experiments.runner import dataset
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.trainings import Trained, Trainings
from minisparse.experiments.transfer import transfers
from minisparse.methods.dense import Dense
from minisparse.nn.models import build
from minisparse.nn.network import Network
from minisparse.training import keeper
from minisparse.training.state import TrainState

TINY = {"model": "mlp:64-12-10", "epochs": 2, "batch": 256}  # 6 steps an epoch
SPEC = RunSpec("dense", **TINY)


class Stop(Exception):
    """In the middle of the work."""


def dense(made: Trainings, seed: int = 0, spec: RunSpec = SPEC) -> Trained:
    data = dataset("digits", None)
    return made.train("dense", spec, build(spec.model, data, seed), Dense(), data, seed, {0: "a", 7: "b"})


def same(a: Network, b: Network) -> bool:
    one, two = a.state(), b.state()
    return one.keys() == two.keys() and all(one[k].tobytes() == two[k].tobytes() for k in one)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps of all trainings, as they are made; those at which a training begins are left out."""
    made: list[int] = []
    real = trainings.trained

    def watched(
        spec: Any, network: Any, method: Any, data: Any, seed: Any, progress: Any, keeping: Any
    ) -> Any:
        before: list[int] = []

        def watch(state: TrainState) -> None:
            progress(state)
            if before or state.step % 6 == 1:  # 1 after a snapshot at the end of an epoch
                made.append(state.step)
            before.append(state.step)

        return real(spec, network, method, data, seed, watch, keeping)

    monkeypatch.setattr(trainings, "trained", watched)
    monkeypatch.setattr(keeper, "SECONDS", 0.0)
    return made


def test_a_training_is_made_once(tmp_path: Path, steps: list[int]) -> None:
    first = dense(Trainings(tmp_path))
    assert len(steps) == 12 and list(first.waypoints) == ["a", "b"]
    again = dense(Trainings(tmp_path))
    assert len(steps) == 12
    assert again.accuracy == first.accuracy and same(again.network, first.network)
    assert all(same(again.at(name), first.at(name)) for name in "ab")
    data = dataset("digits", None)
    assert same(first.at("a"), build(SPEC.model, data, 0)) and not same(first.at("b"), first.network)
    assert not list(tmp_path.glob("unfinished/*"))


@pytest.mark.parametrize("change", [{"seed": 1}, {"spec": RunSpec("dense", rate="cosine:lr=0.2", **TINY)}])
def test_another_training_is_another(tmp_path: Path, steps: list[int], change: dict[str, Any]) -> None:
    first, other = dense(Trainings(tmp_path)), dense(Trainings(tmp_path), **change)
    assert len(steps) == 24 and not same(first.network, other.network)


def test_a_network_of_other_weights_or_data_is_another(tmp_path: Path, steps: list[int]) -> None:
    data, made = dataset("digits", None), Trainings(tmp_path)
    network = build(SPEC.model, data, 0)
    dense(made)
    network.prunable()["fc1"].weight.dense()[3, 5] += 1e-3
    made.train("", SPEC, network, Dense(), data, 0, {0: "a", 7: "b"})
    assert len(steps) == 24


@pytest.mark.parametrize("part", ["end", "b"])
def test_what_is_damaged_is_made_again(tmp_path: Path, steps: list[int], part: str) -> None:
    first = dense(Trainings(tmp_path))
    (path,) = tmp_path.glob(f"trainings/*/{part}/*.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    assert same(dense(Trainings(tmp_path)).network, first.network) and len(steps) == 24
    dense(Trainings(tmp_path))
    assert len(steps) == 24


def test_fresh_makes_each_once_more(tmp_path: Path, steps: list[int]) -> None:
    dense(Trainings(tmp_path))
    made = Trainings(tmp_path, fresh=True)
    dense(made), dense(made)
    assert len(steps) == 24


def test_a_training_that_diverges_is_a_result_and_says_so(tmp_path: Path, steps: list[int]) -> None:
    wild = RunSpec("dense", rate="constant:lr=1e30", **TINY)
    found = dense(Trainings(tmp_path), spec=wild)
    made = len(steps)
    assert np.isnan(found.accuracy) and "b" not in found.waypoints
    with pytest.raises(NonFiniteError, match="diverged before 'b': got a"):
        dense(Trainings(tmp_path), spec=wild).at("b")
    assert len(steps) == made


def test_progress_counts_what_is_left(tmp_path: Path, steps: list[int]) -> None:
    seen: list[float] = []
    made = Trainings(tmp_path, lambda share, label: seen.append(share), to_make=36)
    dense(made)
    assert seen == pytest.approx([k / 36 for k in range(1, 13)])
    dense(made)  # is there: 24 steps in all
    seen.clear()
    dense(made, seed=1)
    assert seen == pytest.approx([k / 24 for k in range(13, 25)])


def stopped_after(step: int, folder: Path) -> None:
    def report(share: float, label: str) -> None:
        if round(share * 12) == step:
            raise Stop

    with pytest.raises(Stop):
        dense(Trainings(folder, report, to_make=12))


def test_steps_behind_a_snapshot_are_not_to_be_made(tmp_path: Path, steps: list[int]) -> None:
    stopped_after(9, tmp_path)
    seen: list[float] = []
    dense(Trainings(tmp_path, lambda share, label: seen.append(share), to_make=12))
    assert seen == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_a_snapshot_without_the_waypoints_behind_it_is_not_gone_on_from(
    tmp_path: Path, steps: list[int]
) -> None:
    stopped_after(9, tmp_path)
    (path,) = tmp_path.glob("trainings/*/a/manifest.json")
    path.unlink()
    steps.clear()
    assert list(dense(Trainings(tmp_path)).waypoints) == ["a", "b"] and len(steps) == 12


STUDIES: dict[str, Callable[[Trainings | None], list[dict[str, Any]]]] = {
    "connectivity": lambda kept: stability(0.8, (0.0, 0.25), (0,), TINY, rounds=2, kept=kept),
    "alignment": lambda kept: alignments((0.5, 0.8), (0,), TINY, rounds=2, rewind=0.25, kept=kept),
    "transfer": lambda kept: transfers("digits", "digits", (0.5, 0.8), (0,), TINY, rounds=2, kept=kept),
}


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_that_is_stopped_again_and_again_is_as_if_it_were_not(
    tmp_path: Path, steps: list[int], study: str
) -> None:
    """Every 19 steps. Made twice are only the steps since the last end of an epoch, of 6 steps."""
    expected = STUDIES[study](None)
    whole, stops = len(steps), 0
    steps.clear()

    def report(share: float, label: str) -> None:
        if len(steps) - before >= 19:
            raise Stop

    while stops < 99:
        before = len(steps)
        try:
            rows = STUDIES[study](Trainings(tmp_path, report))
            break
        except Stop:
            stops += 1
    assert stops < 99 and rows == expected
    assert stops >= 5 and whole <= len(steps) <= whole + 7 * stops
    assert not list(tmp_path.glob("unfinished/*"))
    before = len(steps)
    assert STUDIES[study](Trainings(tmp_path)) == expected and len(steps) == before


@pytest.mark.parametrize("study", STUDIES)
def test_the_steps_of_a_study_are_known_beforehand(tmp_path: Path, study: str) -> None:
    seen: list[float] = []
    made = Trainings(tmp_path, lambda share, label: seen.append(share))
    STUDIES[study](made)
    assert made.done == made.to_make > 0
    assert seen == sorted(seen) and seen[-1] == 1
