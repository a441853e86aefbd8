"""Rows against NumPy, and sentences that say what is so."""

from dataclasses import replace
from math import isnan, nan

import numpy as np
import pytest

from minisparse.experiments.diagnosis import explain, starved, weakest
from minisparse.experiments.inspect import LayerRow
from minisparse.experiments.runner import Outcome
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.summary import curves, findings, summarise, tasks, verdict


def layer(name: str, kept: int, shape: tuple[int, int], dead_in: int, dead_out: int) -> LayerRow:
    total = shape[0] * shape[1]
    return LayerRow(
        name, shape, kept, total, 1 - kept / total, dead_in, dead_out, 1, kept, 2 * kept, {"dense": 4 * total}
    )


def outcome(method: str, sparsity: float, accuracy: float, seed: int = 0, **more: object) -> Outcome:
    settings = (("sparsity", repr(sparsity)),) if sparsity else ()
    own = more.pop("settings", ())
    facts = {
        "sparsity": sparsity, "sparsity_asked": sparsity, "total": 100, "chance": 0.1, "seconds": 1.0 + seed,
        "kept": round(100 * (1 - sparsity)), "macs_dense": 100, "macs": 10 + seed,
        "bytes": {"csr": 8, "dense": 400},
    }  # fmt: skip
    return Outcome(RunSpec(method, settings + own, seed=seed), accuracy=accuracy, **(facts | more))


def test_means_and_spreads() -> None:
    accuracies = [0.91, 0.94, 0.88, 0.925]
    (row,) = summarise([outcome("snip", 0.8, a, seed) for seed, a in enumerate(accuracies)])
    assert row.accuracy == pytest.approx(np.mean(accuracies), abs=1e-15)
    assert row.spread == pytest.approx(np.std(accuracies, ddof=1), abs=1e-15)
    assert row.seconds == pytest.approx(2.5)
    assert row.macs == pytest.approx(11.5)
    assert (row.runs, row.measured, row.statuses, row.status) == (4, 4, {"done": 4}, "4 done")
    assert (row.sparsity_asked, row.sparsity, row.chance) == (0.8, 0.8, 0.1)
    assert list(row.bytes) == ["dense", "csr"]


def test_one_run_has_no_spread() -> None:
    (row,) = summarise([outcome("snip", 0.8, 0.5)])
    assert isnan(row.spread)


def test_rows_are_apart_by_everything_but_the_seed() -> None:
    found = [
        outcome("rigl", 0.9, 0.5),
        outcome("rigl", 0.9, 0.7, 1),
        outcome("rigl", 0.8, 0.5),
        outcome("set", 0.9, 0.5),
        outcome("rigl", 0.9, 0.5, settings=(("every", "20"),)),
    ]
    rows = summarise(found)
    assert [(r.label, r.sparsity_asked, r.runs) for r in rows] == [
        ("rigl", 0.9, 2), ("rigl", 0.8, 1), ("set", 0.9, 1), ("rigl (every=20)", 0.9, 1),
    ]  # fmt: skip
    assert rows[0].keys == (found[0].spec.key, found[1].spec.key)


def found(method: str, strength: float, sparsity: float, seed: int = 0, settings: tuple = ()) -> Outcome:
    """A run of a method without a sparsity setting."""
    made = outcome(method, 0.0, 0.9, seed, settings=(("strength", repr(strength)), *settings))
    return replace(made, sparsity=sparsity, kept=round(100 * (1 - sparsity)))


def test_a_sparsity_that_was_found_is_its_place_and_one_that_was_asked_for_is_not() -> None:
    seeds = [found("l0", 2.0, s, seed) for seed, s in enumerate((0.7, 0.8))]
    near_miss = outcome("magnitude", 0.9, 0.9)
    near_miss.sparsity = 0.8997
    free, asked, dense, open_ = summarise(
        [*seeds, near_miss, outcome("dense", 0.0, 0.9), found("l0", 1.0, 0.0)]
    )
    assert free.finds and free.place == pytest.approx(0.75) and not free.reference
    assert not asked.finds and (asked.place, asked.sparsity) == (0.9, 0.8997)
    assert dense.reference and not dense.finds and dense.place == 0
    # gates that all stay open have found nothing
    assert not open_.finds and open_.place == 0


def test_runs_at_several_strengths_are_one_line_in_the_order_of_what_they_found() -> None:
    runs = [found("l0", s, at) for s, at in ((10.0, 0.95), (0.5, 0.3), (2.0, 0.8))]
    runs += [found("variational-dropout", 1.5, 0.97), outcome("magnitude", 0.98, 0.9)]
    runs += [outcome("magnitude", 0.9, 0.9), outcome("dense", 0.0, 0.98)]
    lines = curves(summarise(runs))
    assert {label: [row.place for row in own] for label, own in lines.items()} == {
        "l0": [0.3, 0.8, 0.95],
        "variational-dropout (strength=1.5)": [0.97],
        "magnitude": [0.9, 0.98],
    }


def test_settings_shared_by_all_strengths_stay_in_the_label() -> None:
    runs = [found("l0", s, at, settings=(("unit", "row"),)) for s, at in ((10.0, 0.9), (3.0, 0.5))]
    assert list(curves(summarise(runs))) == ["l0 (unit=row)"]
    # those in which they differ go, whatever they are, and the other method's are not asked
    runs = [found("l0", 3.0, 0.9, settings=(("unit", "row"),)), found("l0", 3.0, 0.5)]
    others = [found("variational-dropout", s, 0.7) for s in (0.5, 3.0)]
    assert list(curves(summarise(runs + others))) == ["l0 (strength=3.0)", "variational-dropout"]


def test_methods_that_are_told_their_sparsity_keep_their_settings() -> None:
    runs = [outcome("rigl", 0.9, 0.5, settings=(("every", n),)) for n in ("20", "50")]
    assert list(curves(summarise(runs))) == ["rigl (every=20)", "rigl (every=50)"]


def test_rows_that_differ_in_weights_storage_or_batch_are_told_apart_by_them() -> None:
    specs = [{}, {"weights": "0123456789abcdef"}, {"storage": "csr"}, {"batch": 32}, {"dtype": "float64"}, {}]
    found = [outcome("rigl", 0.9, 0.5, seed) for seed in range(len(specs))]
    rows = summarise([replace(o, spec=replace(o.spec, **more)) for o, more in zip(found, specs, strict=True)])
    assert [(row.label, row.runs) for row in rows] == [
        ("rigl", 2), ("rigl (from weights 01234567)", 1), ("rigl (storage=csr)", 1), ("rigl (batch=32)", 1),
        ("rigl (dtype=float64)", 1),
    ]  # fmt: skip


def test_rows_that_differ_only_in_length_are_told_apart_by_it() -> None:
    def long(o: Outcome, epochs: int) -> Outcome:
        return replace(o, spec=replace(o.spec, epochs=epochs))

    usual_, other = outcome("rigl", 0.9, 0.5), outcome("set", 0.9, 0.5)
    with_setting = outcome("snip", 0.9, 0.5, settings=(("control", "reinit"),))
    runs = [usual_, long(usual_, 100), other, with_setting, long(with_setting, 100), long(other, 5)]
    lengthened = long(outcome("granet", 0.9, 0.5), 100)  # alone at its length: nothing to tell it from
    labels = [row.label for row in summarise([*runs, lengthened])]
    assert labels == [
        "rigl", "rigl (epochs=100)", "set", "snip (control=reinit)", "snip (control=reinit, epochs=100)",
        "set (epochs=5)", "granet",
    ]  # fmt: skip
    # another sparsity, model or data set is difference enough
    elsewhere = [long(outcome("rigl", 0.8, 0.5), 100), long(replace(usual_), 30)]
    elsewhere.append(replace(usual_, spec=replace(usual_.spec, model="lenet-5", epochs=100)))
    assert [row.label for row in summarise(elsewhere)] == ["rigl"] * 3


def test_lines_are_those_of_one_task() -> None:
    runs = [found("l0", 3.0, 0.5), found("l0", 2.0, 0.9)]
    runs += [replace(o, spec=replace(o.spec, model="lenet-5")) for o in runs[:1]]
    by_task = {task: list(curves(own)) for task, own in tasks(summarise(runs)).items()}
    assert by_task == {"lenet-300-100 on digits": ["l0"], "lenet-5 on digits": ["l0 (strength=3.0)"]}


def test_bad_runs_are_counted_and_never_averaged_away() -> None:
    group = [
        outcome("snip", 0.9, 0.9),
        outcome("snip", 0.9, 0.1, 1, status="collapsed", note="layer 'fc1' collapsed"),
        outcome("snip", 0.9, nan, 2, status="diverged", note="diverged at step 3"),
        Outcome(RunSpec("snip", seed=3), "failed", "ValueError: x", sparsity_asked=0.9),
    ]
    (row,) = summarise(group)
    assert row.accuracy == pytest.approx(0.5)
    assert (row.runs, row.measured) == (4, 2)
    assert row.status == "1 done, 1 collapsed, 1 diverged, 1 failed"
    assert [note.partition(":")[0] for note in row.notes] == ["seed 1", "seed 2", "seed 3"]
    text = " ".join(verdict([row]))
    assert "diverged at step 3" in text
    assert "ValueError: x" in text


def test_a_group_of_failures_has_a_row() -> None:
    (row,) = summarise([Outcome(RunSpec("snip"), "failed", "x", sparsity_asked=0.9)])
    assert isnan(row.accuracy)
    assert isnan(row.sparsity)
    assert isnan(row.seconds)
    assert row.status == "1 failed"


def usual() -> list[Outcome]:
    return [
        outcome("dense", 0.0, 0.98),
        outcome("dense", 0.0, 0.99, 1),
        outcome("random", 0.9, 0.94),
        outcome("rigl", 0.9, 0.9701),
        outcome("snip", 0.9, 0.9699),
        outcome("magnitude", 0.9, 0.985),
        outcome("magnitude", 0.998, 0.7),
        outcome(
            "snip", 0.998, 0.1, status="collapsed", note="no path",
            layers=[layer("fc1", 7, (10, 20), 14, 6), layer("fc2", 5, (4, 10), 7, 0)],
        ),
    ]  # fmt: skip


def test_success_is_within_the_margin_and_not_beyond() -> None:
    found = {f.text.partition(":")[0]: f for f in findings(summarise(usual()))}
    success = found["Success"].text
    assert "At 90 % sparsity 2 of 4 methods stay within 1.5 points of dense" in success
    assert success.endswith("magnitude 98.5 %, rigl 97.0 %.")
    beyond = found["Below that line at 90 %"].text
    assert "random loses 4.5" in beyond
    assert "snip loses 1.5" in beyond
    reference = found["Reference"].text
    assert "98.5 \u00b1 0.7 % (2 runs)" in reference
    assert "10.0 %" in reference
    assert any(text.startswith("Choosing is worth 4.5 points") for text in found)


def test_failure_names_method_layer_and_cause() -> None:
    texts = [f.text for f in findings(summarise(usual()))]
    (failure,) = [t for t in texts if t.startswith("Failure")]
    assert "At 99.8 % sparsity (1 of 500 weights kept) 1 of 2 methods collapse" in failure
    (detail,) = [t for t in texts if t.startswith("snip: 1 of 1 runs")]
    assert "'fc1' keeps 7 of 200 weights, which feed 4 of its 10 units, and 'fc2' reads 3 of the 10" in detail
    assert "one ranking over all layers" in detail
    assert "Still alive there: magnitude 70.0 %." in texts


def test_no_collapse_is_said_too() -> None:
    texts = verdict(summarise([outcome("dense", 0.0, 0.98), outcome("rigl", 0.99, 0.9)]))
    assert any(t.startswith("No collapse") for t in texts)
    assert any(t.startswith("No success") for t in texts)


def test_a_network_that_guesses_is_not_called_alive() -> None:
    rows = summarise([outcome("rigl", 0.99, 0.14), outcome("snip", 0.99, 0.16)])
    texts = verdict(rows)
    assert "Still alive there: snip 16.0 %." in texts
    assert "No better there than one class for all: rigl 14.0 %." in texts


def test_nothing_to_say_is_no_error() -> None:
    assert verdict([]) == []
    assert verdict(summarise([outcome("rigl", 0.5, nan)])) == []
    assert len(verdict(summarise([outcome("dense", 0.0, 0.9)]))) == 1


def test_several_models_are_kept_apart() -> None:
    other = [replace(o, spec=replace(o.spec, model="lenet-5")) for o in usual()]
    texts = verdict(summarise(usual() + other))
    assert sum(t.startswith("lenet-5 on digits: Success") for t in texts) == 1
    assert sum(t.startswith("lenet-300-100 on digits: Success") for t in texts) == 1


def test_the_starved_layer_is_the_one_with_most_units_cut_off() -> None:
    rows = [layer("a", 5, (4, 9), 0, 1), layer("b", 9, (4, 4), 1, 3), layer("c", 3, (2, 4), 0, 1)]
    found = outcome("random", 0.9, 0.1, layers=rows)
    assert starved(found) is rows[1]
    assert (
        weakest(found) == "'b' keeps 9 of 16 weights, which feed 1 of its 4 units, and 'c' reads 4 of the 4"
    )
    wide, narrow = layer("a", 40, (40, 9), 0, 9), layer("b", 4, (4, 40), 0, 2)
    assert starved(outcome("random", 0.9, 0.1, layers=[wide, narrow])) is narrow
    assert starved(outcome("random", 0.9, 0.9, layers=[layer("a", 5, (4, 9), 0, 0)])) is None


def test_an_explanation_fits_its_allocation() -> None:
    rows = [layer("a", 5, (4, 9), 0, 1)]
    by_score = outcome("magnitude", 0.9, 0.1, layers=rows, status="collapsed", note="n")
    by_share = outcome("random", 0.9, 0.1, layers=rows, status="collapsed", note="n")
    assert "one ranking over all layers" in explain(by_score)
    assert "every layer got its share" in explain(by_share)
    assert explain(outcome("random", 0.9, nan, status="diverged", note="n")) == "n"
    gone = replace(by_score, spec=RunSpec.stored({"method": "gone"}))
    assert explain(gone).startswith("n; 'a' keeps 5")
