"""Grids: what is planned, what is run, what is not run twice, what survives."""

from math import isnan
from pathlib import Path

import pytest

from minisparse.data.dataset import Dataset
from minisparse.errors import UnknownNameError, UsageError
from minisparse.experiments import runner
from minisparse.experiments.compare import compare
from minisparse.experiments.plan import DEFAULT_PLAN, Plan, plan
from minisparse.experiments.runner import Outcome, execute
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.store import Store

SMALL = {"model": "mlp:64-8-10", "epochs": 1, "batch": 512}


class Counting:
    """Stands for `execute`: counts, and on chosen runs (by place) raises instead."""

    def __init__(self, raising: dict[int, BaseException] | None = None) -> None:
        self.specs: list[RunSpec] = []
        self.raising = raising or {}

    def __call__(self, spec: RunSpec, data_dir: object, watch: object) -> Outcome:
        self.specs.append(spec)
        if len(self.specs) - 1 in self.raising:
            raise self.raising[len(self.specs) - 1]
        return Outcome(spec, accuracy=0.5, sparsity_asked=spec.sparsity)


def grid(seeds: int = 2) -> list[RunSpec]:
    return plan(["magnitude", "rigl"], [0.5, 0.9], seeds, **SMALL)


def test_a_plan_is_the_whole_grid() -> None:
    specs = plan(["magnitude", "rigl"], [0.5, 0.9], 3, epochs=2)
    found = {(s.method, s.sparsity, s.seed) for s in specs}
    expected = {(m, s, seed) for m in ("magnitude", "rigl") for s in (0.5, 0.9) for seed in range(3)}
    assert found == expected | {("dense", 0.0, seed) for seed in range(3)}
    assert len(specs) == len(found)
    assert {s.epochs for s in specs} == {2}
    assert [s.seed for s in specs] == sorted(s.seed for s in specs)


def test_explicit_settings_of_the_plan_are_in_the_specs() -> None:
    (every,) = {dict(s.settings)["every"] for s in plan() if s.method == "rigl"}
    assert int(every) == DEFAULT_PLAN.settings["rigl"]["every"]
    narrow = Plan(("imp", "snip"), (0.5, 0.9), (0,), narrowed={"imp": (0.9,)}).specs()
    assert [(s.method, s.sparsity) for s in narrow] == [("imp", 0.9), ("snip", 0.5), ("snip", 0.9)]


def test_the_default_plan_is_what_the_report_is_about() -> None:
    specs = plan()
    assert {s.method for s in specs} == set(DEFAULT_PLAN.methods)
    assert len({s.seed for s in specs}) == 3
    assert 0.9 in DEFAULT_PLAN.sparsities
    assert max(DEFAULT_PLAN.sparsities) > 0.99
    assert {(s.model, s.data) for s in specs} == {("lenet-300-100", "digits")}


def test_sparsities_that_were_asked_for_hold_for_all_methods() -> None:
    levels = {s.sparsity for s in plan(["imp"], [0.3]) if s.method == "imp"}
    assert levels == {0.3}


@pytest.mark.parametrize("parts", [{"sparsities": []}, {"seeds": 0}, {"seeds": []}])
def test_an_empty_plan_is_refused(parts: dict[str, object]) -> None:
    assert {s.method for s in plan([])} == {"dense"}
    with pytest.raises(UsageError, match="got none"):
        plan(**parts)


def test_everything_runs_once_and_is_stored(store: Store) -> None:
    count = Counting()
    outcomes = compare(grid(), store, execute=count)
    assert count.specs == grid()
    assert [o.spec for o in outcomes] == grid()
    assert {o.spec.key for o in store.all()} == {s.key for s in grid()}
    again = Counting()
    assert [o.to_json() for o in compare(grid(), store, execute=again)] == [o.to_json() for o in outcomes]
    assert again.specs == []


@pytest.mark.parametrize("at", [0, 1, 5, 9])
def test_after_an_interruption_only_the_rest_is_run(store: Store, at: int) -> None:
    first = Counting({at: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        compare(grid(), store, execute=first)
    assert len(store.all()) == at
    rest = Counting()
    outcomes = compare(grid(), store, execute=rest)
    assert rest.specs == grid()[at:]
    assert [o.spec for o in outcomes] == grid()


def test_a_larger_grid_adds_to_a_smaller_one(store: Store) -> None:
    compare(grid(1), store, execute=Counting())
    more = Counting()
    compare(grid(2), store, execute=more)
    assert more.specs == [s for s in grid(2) if s.seed == 1]


def test_an_unexpected_error_is_one_failed_run_and_is_tried_again(store: Store) -> None:
    broken = Counting({1: RuntimeError("no luck"), 4: MemoryError()})
    outcomes = compare(grid(), store, execute=broken)
    assert [o.status for o in outcomes].count("failed") == 2
    assert outcomes[1].note == "RuntimeError: no luck"
    assert isnan(outcomes[1].accuracy)
    assert len(broken.specs) == len(grid())
    again = Counting()
    repaired = compare(grid(), store, execute=again)
    assert again.specs == [grid()[1], grid()[4]]
    assert {o.status for o in repaired} == {"done"}


def test_bad_results_are_results(store: Store) -> None:
    def bad(spec: RunSpec, data_dir: object, watch: object) -> Outcome:
        return Outcome(spec, "diverged" if spec.seed else "collapsed", "why")

    compare(grid(), store, execute=bad)
    again = Counting()
    assert {o.status for o in compare(grid(), store, execute=again)} == {"diverged", "collapsed"}
    assert again.specs == []


def test_missing_data_is_an_error_before_anything_runs(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    count = Counting()
    monkeypatch.delenv("MINISPARSE_DATA", raising=False)
    with pytest.raises(Exception, match="not found"):
        compare([*grid(), RunSpec("dense", data="cifar-10")], store, execute=count)
    assert count.specs == []


def test_real_runs_report_their_progress_and_keep_their_networks(store: Store) -> None:
    seen: list[tuple[float, str, bool]] = []
    specs = plan(["imp"], [0.5], 1, **SMALL)

    def watch(done: float, spec: RunSpec, outcome: Outcome | None) -> None:
        seen.append((done, spec.method, outcome is not None))

    outcomes = compare(specs, store, watch)
    assert [o.network for o in outcomes] == [None, None]
    assert [store.network(o.spec.key).name for o in outcomes] == ["mlp:64-8-10"] * 2
    done = [number for number, _, _ in seen]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, 2)
    assert [(number, method) for number, method, finished in seen if finished] == [(1, "dense"), (2, "imp")]
    fractions = [number - 1 for number, method, finished in seen if method == "imp" and not finished]
    rounds = DEFAULT_PLAN.settings["imp"]["rounds"]
    assert fractions == pytest.approx([0, 0, *[k / (rounds + 1) for k in range(1, rounds + 2)]])


def test_a_method_that_does_not_fit_fails_alone(store: Store) -> None:
    specs = plan(["synflow", "magnitude"], [0.5], 1, **(SMALL | {"model": "mlp:64-8-10:tanh"}))
    outcomes = {o.spec.method: o for o in compare(specs, store)}
    assert outcomes["synflow"].status == "failed"
    assert "homogeneous activations" in outcomes["synflow"].note
    assert outcomes["magnitude"].status == "done"


def test_unknown_names_are_errors_of_the_plan() -> None:
    with pytest.raises(UnknownNameError):
        plan(["magnitud"])
    with pytest.raises(UnknownNameError):
        plan(model="lenet")


def test_data_is_read_once(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reads = []
    load = runner.load

    def counted(name: str, folder: str | None, seed: int) -> Dataset:
        reads.append(name)
        return load(name, folder, seed)

    monkeypatch.setattr(runner, "load", counted)
    runner.dataset.cache_clear()
    compare(grid(1)[:3], store, execute=lambda spec, folder, watch: execute(spec, folder))
    assert reads == ["digits"]
