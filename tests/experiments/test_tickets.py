"""Tickets: the ladder's levels, the shortcut that gives the same bits, what is kept, and the tables."""

from collections.abc import Callable
from dataclasses import replace
from math import isnan, nan
from pathlib import Path

import numpy as np
import pytest

from minisparse.errors import UsageError
from minisparse.experiments import tickets
from minisparse.experiments.cells import REFERENCE, Cell, arm_rows, curve, curves, early
from minisparse.experiments.compare import compare
from minisparse.experiments.runner import Outcome, execute
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.store import Store
from minisparse.experiments.ticket_plots import accuracy_of_arms, barriers, learning_curves
from minisparse.experiments.tickets import Climb, Continued, Ladder, rounds_for, scratch_cells
from minisparse.sparsity import Reinit, Shuffle, Untouched, combine
from minisparse.training import checkpoint, keeper
from minisparse.training.state import TrainState

TINY = {"model": "mlp:64-12-10", "epochs": 2, "batch": 256}  # 6 steps an epoch
LADDER = Ladder((0.5, 0.8), (0,), rounds=4, rewind=0.25, training=TINY)


def quiet(state: object) -> None:
    pass


def test_rounds_of_a_fifth() -> None:
    assert [rounds_for(s) for s in (0.2, 0.36, 0.37, 0.98)] == [1, 2, 3, 18]
    assert rounds_for(0.5, share=0.5) == 1
    assert Ladder((0.8, 0.98)).height == 18 and Ladder((0.8,), rounds=3).height == 3


def test_a_level_is_the_round_nearest_in_log_density() -> None:
    ladder = Ladder((0.8, 0.9, 0.95, 0.98))
    assert ladder.rungs == (7, 11, 14, 18) and ladder.levels[-1] == 0.98
    for asked, rung in zip(ladder.sparsities, ladder.rungs, strict=True):
        distances = [abs(np.log(1 - level) - np.log(1 - asked)) for level in ladder.levels]
        assert rung - 1 == int(np.argmin(distances))
    assert Ladder((0.01, 0.02, 0.9)).rungs == (1, 11)


def test_every_cell_is_an_ordinary_run_and_the_ladder_is_one_of_them() -> None:
    found = {(c.arm, c.level, c.spec.seed) for c in LADDER.cells}
    levels = {0.0} | {LADDER.levels[rung - 1] for rung in LADDER.rungs}
    assert len(found) == len(LADDER.cells) == 1 + 2 * 3 and {c[1] for c in found} == levels
    assert LADDER.chain(0).key in {c.spec.key for c in LADDER.cells}
    assert len({c.spec.key for c in LADDER.cells}) == len(LADDER.cells)


@pytest.mark.parametrize("rewind", [0.0, 0.25])
def test_the_last_training_alone_gives_the_same_bits_as_the_whole_run(tmp_path: Path, rewind: float) -> None:
    arms = (Untouched(), Reinit(), Shuffle(), combine(Reinit(True), Shuffle()))
    climb = Climb(replace(LADDER, rewind=rewind, arms=arms), tmp_path)
    for cell in climb.ladder.cells:
        short, whole = climb.execute(cell.spec, None, quiet), execute(cell.spec)
        assert short.network is not None and whole.network is not None
        for key, value in whole.network.state().items():
            np.testing.assert_array_equal(short.network.state()[key], value, err_msg=cell.arm)
        assert (short.accuracy, short.kept, short.steps) == (whole.accuracy, whole.kept, whole.steps)
        assert curve(cell, short) == curve(cell, whole)


def never(*parts: object) -> Outcome:
    raise AssertionError("run again")


def test_tickets_are_kept_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    climb = Climb(LADDER, tmp_path)
    first = climb.execute(LADDER.chain(0), None, quiet)
    cell = next(c for c in LADDER.cells if c.arm == "shuffled mask" and c.rung < 4)
    expected = climb.execute(cell.spec, None, quiet)
    later = Climb(LADDER, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(later, "_climb", never)
        assert later.execute(cell.spec, None, quiet).accuracy == expected.accuracy
    # a damaged ticket is found anew
    (place,) = tmp_path.glob("tickets/*/round-02/manifest.json")
    place.write_text("{}")
    with pytest.raises(AssertionError, match="run again"), monkeypatch.context() as patch:
        patch.setattr(later, "_climb", never)
        later.execute(cell.spec, None, quiet)
    again = Climb(LADDER, tmp_path)
    assert again.execute(cell.spec, None, quiet).accuracy == expected.accuracy
    assert first.accuracy == again.execute(LADDER.chain(0), None, quiet).accuracy
    again.forget()
    monkeypatch.setattr(again, "_climb", never)
    with pytest.raises(AssertionError, match="run again"):
        again.execute(cell.spec, None, quiet)


def test_tickets_are_those_of_the_ladders_own_run(tmp_path: Path) -> None:
    chain = LADDER.chain(0)
    Climb(LADDER, tmp_path).execute(chain, None, quiet)
    masks, horizon, k = [], 12, 3

    def watch(state: TrainState) -> None:
        if state.step >= horizon and (state.step - horizon) % (horizon - k) == 0:
            masks.append(state.network.masks())

    execute(chain, None, watch)
    for rung, expected in enumerate(masks[:4], start=1):
        found = checkpoint.load(tmp_path / "tickets" / chain.key / f"round-{rung:02d}").masks()
        for name, mask in expected.items():
            np.testing.assert_array_equal(found[name], mask)


class Stop(Exception):
    """In the middle of a run."""


def stopping(step: int, seen: list[int]) -> Callable[[TrainState], None]:
    def watch(state: TrainState) -> None:
        seen.append(state.step)
        if state.step == step:
            raise Stop

    return watch


@pytest.mark.parametrize("step", [4, 12, 13, 25, 40, 48])
def test_a_ladder_that_is_stopped_goes_on_from_its_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """12 steps, then 9 for each of 4 rounds: stopped before a snapshot, at a round, between, at the end."""
    monkeypatch.setattr(keeper, "SECONDS", 0.0)
    whole = [Climb(LADDER, tmp_path / "whole").execute(c.spec, None, quiet) for c in LADDER.cells]
    seen: list[int] = []
    chain = LADDER.chain(0)
    with pytest.raises(Stop):
        Climb(LADDER, tmp_path).execute(chain, None, stopping(step, seen))
    outcome = Climb(LADDER, tmp_path).execute(chain, None, stopping(-1, seen))
    saved = (step - 1) // 6 * 6  # ends of epochs; stopped before the snapshot of the step itself
    assert seen[step + 1] == (saved + 1 if saved else 0) and seen[-1] == 48
    expected = next(o for o in whole if o.spec.key == chain.key)
    assert repr(outcome.history) == repr(expected.history) and state_of(outcome) == state_of(expected)
    monkeypatch.setattr(Climb, "_climb", never)
    for cell, one in zip(LADDER.cells, whole, strict=True):
        if cell.spec.key != chain.key:
            other = Climb(LADDER, tmp_path).execute(cell.spec, None, quiet)
            assert repr(other.history) == repr(one.history) and state_of(other) == state_of(one)


def state_of(outcome: Outcome) -> dict[str, bytes]:
    assert outcome.network is not None
    return {key: value.tobytes() for key, value in outcome.network.state().items()}


def test_a_snapshot_without_the_tickets_behind_it_is_not_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "SECONDS", 0.0)
    chain, seen = LADDER.chain(0), list[int]()
    with pytest.raises(Stop):
        Climb(LADDER, tmp_path).execute(chain, None, stopping(25, []))
    (place,) = tmp_path.glob("tickets/*/round-01/manifest.json")
    place.unlink()
    Climb(LADDER, tmp_path).execute(chain, None, stopping(-1, seen))
    assert seen[0] == 0 and place.exists()


def test_a_last_training_that_is_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "SECONDS", 0.0)
    climb, seen = Climb(LADDER, tmp_path), list[int]()
    cell = next(c for c in LADDER.cells if c.arm == "new weights" and c.rung == 4)
    climb.execute(LADDER.chain(0), None, quiet)
    whole = climb.execute(cell.spec, None, quiet)
    (Store(tmp_path)).forget(cell.spec.key)
    with pytest.raises(Stop):
        climb.execute(cell.spec, None, stopping(44, seen))
    outcome = climb.execute(cell.spec, None, stopping(-1, seen))
    assert seen == [*range(39, 45), *range(43, 49)]
    assert state_of(outcome) == state_of(whole) and repr(outcome.history) == repr(whole.history)


def test_cells_of_one_ladder_wait_until_it_is_climbed(tmp_path: Path) -> None:
    ladder = replace(LADDER, seeds=(0, 1))
    climb = Climb(ladder, tmp_path)
    names = {c.spec.key: climb.alone(c.spec) for c in ladder.cells}
    assert {names[c.spec.key] for c in ladder.cells if c.rung and c.spec.seed == 0} == {ladder.chain(0).key}
    assert {names[c.spec.key] for c in ladder.cells if not c.rung} == {""}
    climb.execute(ladder.chain(0), None, quiet)
    free = {c.spec.seed for c in ladder.cells if c.rung and not climb.alone(c.spec)}
    assert free == {0}
    (place,) = tmp_path.glob("tickets/*/round-02/manifest.json")
    place.unlink()
    assert Climb(ladder, tmp_path).alone(ladder.chain(0)) == ladder.chain(0).key


def test_masks_of_a_continued_run_tell_it_from_others() -> None:
    """As text, by which a snapshot is known; that of large arrays would be cut short."""
    masks = {"fc1": np.zeros((100, 100), dtype=bool)}
    other = {"fc1": masks["fc1"].copy()}
    other["fc1"][50, 50] = True
    texts = {repr(Continued(0, 0, m).masks) for m in (masks, other, dict(masks))}
    assert len(texts) == 2
    assert repr(Continued(0, 0, {"fc2": masks["fc1"]}).masks) not in texts


def test_a_ladder_that_is_rewound_to_its_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="got step 12, expected one before the end"):
        Climb(replace(LADDER, rewind=0.99), tmp_path).execute(
            replace(LADDER, rewind=0.99).chain(0), None, quiet
        )


def test_finished_runs_are_not_made_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [cell.spec for cell in LADDER.cells]
    climb = Climb(LADDER, store.folder)
    first = compare(specs, store, execute=climb.execute)
    assert not list(store.folder.glob("unfinished/*"))
    again = compare(specs, store, execute=never)
    assert [o.accuracy for o in again] == [o.accuracy for o in first]


def test_a_ladder_that_diverges_leaves_its_runs_to_diverge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wild = replace(LADDER, training={**TINY, "rate": "constant:lr=1e30"})
    climb = Climb(wild, tmp_path)
    outcomes = [climb.execute(cell.spec, None, quiet) for cell in wild.cells]
    assert {o.status for o in outcomes} == {"diverged"}
    # which is known from then on
    monkeypatch.setattr(Climb, "_climb", never)
    assert Climb(wild, tmp_path).execute(wild.cells[-1].spec, None, quiet).status == "diverged"
    assert not climb.alone(wild.cells[-1].spec)
    rows = arm_rows(wild.cells, outcomes)
    assert all(isnan(row.accuracy) and isnan(row.early) for row in rows)
    learning_curves(curves(wild.cells, outcomes))


@pytest.mark.parametrize(
    "settings",
    [
        {"sparsities": (0.0,)},
        {"sparsities": ()},
        {"seeds": ()},
        {"rounds": 0},
        {"rewind": 1.0},
        {"sparsities": (1.0,)},
    ],
)
def test_unusable_ladders_are_refused(settings: dict) -> None:
    with pytest.raises(UsageError):
        Ladder(**settings)


def outcome(cell: Cell, accuracies: list[float], losses: list[float], steps: int, per: int) -> Outcome:
    first, records = steps - per * (len(losses) - 1), []
    for i, (accuracy, loss) in enumerate(zip(accuracies, losses, strict=True)):
        records.append({"step": first + per * i, "accuracy": accuracy, "test_loss": loss})
    return Outcome(cell.spec, accuracy=accuracies[-1], history=records, steps=steps)


def test_a_curve_counts_steps_from_where_its_training_begins() -> None:
    training = {"model": "mlp:64-12-10", "epochs": 2}
    imp = Cell("a", 0.5, RunSpec("imp", (("rounds", "2"), ("rewind", "0.25")), **training), rewind=0.25)
    # horizon 8: steps 8 + 2 * 6 = 20, the last training is 2..8, done in steps 14..20
    made = outcome(imp, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [9, 3, 5, 2, 4, 7], steps=20, per=2)
    assert [step for step, _, _ in curve(imp, made)] == [2, 4, 6, 8]
    assert (
        early(curve(imp, made)) == 4
    )  # losses 5, 2, 4, 7; what is there at the beginning is not early stopping
    long = Cell("b", 0.5, RunSpec("scratch", (("budget", "2"),), **training), budget=2)
    made = outcome(long, [0.1] * 7, [1.0] * 7, steps=24, per=4)
    assert [step for step, _, _ in curve(long, made)] == [0, 4, 8, 12, 16]
    dense = Cell(REFERENCE, 0.0, RunSpec("dense", **training))
    assert [s for s, _, _ in curve(dense, outcome(dense, [0.1] * 3, [1.0] * 3, steps=8, per=4))] == [0, 4, 8]


def test_gaps_are_between_runs_of_one_seed() -> None:
    accuracies = {"a": (0.9, 0.8, 0.7), "b": (0.6, 0.7, 0.5)}
    cells, outcomes = [], []
    for arm, values in accuracies.items():
        for seed, accuracy in enumerate(values):
            cells.append(Cell(arm, 0.5, RunSpec("magnitude" if arm == "a" else "snip", seed=seed)))
            outcomes.append(Outcome(cells[-1].spec, accuracy=accuracy))
    first, second = arm_rows(cells, outcomes)
    assert (first.arm, second.arm, first.gap, second.runs) == ("a", "b", 0.0, 3)
    gaps = np.array([0.3, 0.1, 0.2])
    assert second.gap == pytest.approx(gaps.mean())
    assert second.gap_error == pytest.approx(gaps.std(ddof=1) / np.sqrt(3))
    outcomes[0].accuracy = nan
    assert arm_rows(cells, outcomes)[1].gap == pytest.approx(0.15)


def test_the_scratch_protocol_has_five_arms_at_every_level() -> None:
    cells = scratch_cells((0.5, 0.9), (0, 1), TINY)
    assert len(cells) == len({c.spec.key for c in cells}) == 2 * (1 + 2 * 5)
    settings = {c.arm: dict(c.spec.settings) for c in cells if c.level == 0.5}
    assert settings["scratch, twice as long"]["budget"] == "2"
    assert settings["lottery"]["control"] == "none"
    assert settings["scratch, augmented"]["control"] == "reinit:augmented=true"
    assert {c.budget for c in cells if c.arm == "scratch, twice as long"} == {2}


def test_figures_show_every_arm_and_level(tmp_path: Path) -> None:
    ladder = replace(LADDER, seeds=(0, 1))
    climb = Climb(ladder, tmp_path)
    outcomes = [climb.execute(cell.spec, None, quiet) for cell in ladder.cells]
    rows = arm_rows(ladder.cells, outcomes)
    figure = accuracy_of_arms(rows)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["winning ticket", "new weights", "shuffled mask", "dense"]
    left = figure.axes[0]
    drawn = [list(line.get_ydata()) for line in left.get_lines()]
    for arm in names[:3]:
        assert [100 * row.accuracy for row in rows if row.arm == arm] in drawn
    panels = learning_curves(curves(ladder.cells, outcomes)).axes
    assert len(panels) == 2 and all(len(panel.get_lines()) == 4 for panel in panels)
    points = [{"level": s, "rewind": k, "barrier": 0.1 * k} for s in (0.0, 0.9) for k in (0.0, 0.5)]
    assert len(barriers(points).axes[0].get_lines()) == 2


def test_labels() -> None:
    assert tickets.label_of(Untouched()) == "winning ticket"
    assert tickets.label_of(combine(Reinit(), Shuffle())) == "reinit+shuffle"
