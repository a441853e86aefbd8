"""Tickets: the ladder's levels, the shortcut that gives the same bits, what is kept, and the tables."""

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
from minisparse.experiments.tickets import Climb, Ladder, rounds_for, scratch_cells
from minisparse.sparsity import Reinit, Shuffle, Untouched, combine

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


def test_tickets_are_kept_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    climb = Climb(LADDER, tmp_path)
    first = climb.execute(LADDER.chain(0), None, quiet)
    assert len(climb.found.masks) == 4
    cell = next(c for c in LADDER.cells if c.arm == "shuffled mask" and c.rung < 4)
    expected = climb.execute(cell.spec, None, quiet)

    def never(*parts: object) -> Outcome:
        raise AssertionError("the ladder was climbed again")

    later = Climb(LADDER, tmp_path)
    monkeypatch.setattr(later, "_climb", never)
    assert later.execute(cell.spec, None, quiet).accuracy == expected.accuracy
    for a, b in zip(later.found.masks, climb.found.masks, strict=True):
        for name, mask in a.items():
            np.testing.assert_array_equal(mask, b[name])
    # a damaged ticket is found anew
    (place,) = tmp_path.glob("*/round-02/manifest.json")
    place.write_text("{}")
    again = Climb(LADDER, tmp_path)
    assert again.execute(cell.spec, None, quiet).accuracy == expected.accuracy
    assert first.accuracy == again.execute(LADDER.chain(0), None, quiet).accuracy


def test_finished_runs_are_not_made_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [cell.spec for cell in LADDER.cells]
    climb = Climb(LADDER, store.folder / "tickets")
    first = compare(specs, store, execute=climb.execute)

    def never(*parts: object) -> Outcome:
        raise AssertionError("run again")

    again = compare(specs, store, execute=never)
    assert [o.accuracy for o in again] == [o.accuracy for o in first]


def test_a_ladder_that_diverges_leaves_its_runs_to_diverge(tmp_path: Path) -> None:
    wild = replace(LADDER, training={**TINY, "rate": "constant:lr=1e30"})
    climb = Climb(wild, tmp_path)
    outcomes = [climb.execute(cell.spec, None, quiet) for cell in wild.cells]
    assert {o.status for o in outcomes} == {"diverged"}
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
