"""Screen, progress and numbers for people; and the measuring of training steps."""

import json
import logging
import math
import warnings
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.cli import console, context
from minisparse.cli.console import Bar, Lines, Meter, Screen, decimal, duration, percent, plain, scaled
from minisparse.errors import MinisparseWarning
from minisparse.experiments import bench_sparse_training, bench_train
from minisparse.experiments.bench_train import CASES, Case, dense_records, measure, quartiles, ratio, timed
from minisparse.nn.models import make


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: duration(0.000393), "0.393 ms"),
        (lambda: duration(0.85), "850 ms"),
        (lambda: duration(12.4), "12 s"),
        (lambda: duration(200), "3 min 20 s"),
        (lambda: duration(59.7), "1 min 00 s"),
        (lambda: scaled(0, "B"), "0 B"),
        (lambda: scaled(999, "B"), "999 B"),
        (lambda: scaled(1000, "B"), "1.0 kB"),
        (lambda: scaled(2_510), "2.5 k"),
        (lambda: scaled(12e6, "B"), "12.0 MB"),
        (lambda: scaled(math.nan, "B"), "-"),
        (lambda: percent(0.97249), "97.2 %"),
        (lambda: percent(math.nan), "-"),
        (lambda: decimal(0.5, ".2f"), "0.50"),
        (lambda: decimal(math.nan, ".2f"), "-"),
    ],
)
def test_numbers_for_people(make: Callable[[], str], text: str) -> None:
    assert make() == text


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_plain_is_strict_json_and_loses_only_non_finite(value: object) -> None:
    back = json.loads(json.dumps(plain(value), allow_nan=False))
    assert back == json.loads(json.dumps(value), parse_constant=lambda name: None)


def test_plain_knows_arrays_paths_and_dataclasses() -> None:
    case = Case("m", (2, 3), 1, {1: math.inf})
    found = plain({"a": np.float32(0.5), "b": np.arange(2), "c": Path("x"), "d": case, 3: {1.5}})
    expected = {"model": "m", "shape": [2, 3], "steps": 1, "reference": {"1": None}}
    assert found == {"a": 0.5, "b": [0, 1], "c": "x", "d": expected, "3": [1.5]}


def test_table_keeps_every_character(capsys: pytest.CaptureFixture[str]) -> None:
    """Markup, emoji codes and long cells come out as they went in, one row a line."""
    long = "word " * 60
    Screen().table(["[bold]name[/]", "n"], [["[red]x[/] :smile:", "1,000"], [long.strip(), "2"]], title="[t]")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[t]"
    assert any("[red]x[/] :smile:" in line and line.rstrip().endswith("1,000") for line in lines)
    assert any(long.strip() in line and line.rstrip().endswith("    2") for line in lines)  # flush right


def test_results_and_notes_go_apart(capsys: pytest.CaptureFixture[str]) -> None:
    for quiet in (False, True):
        screen = Screen(quiet)
        screen.line("result")
        screen.note("note")
        screen.warn("odd")
        captured = capsys.readouterr()
        assert captured.out == "result\n"
        assert captured.err == ("" if quiet else "note\n") + "minisparse: warning: odd\n"


def test_meter_suits_the_place(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "0")
    assert type(Screen(quiet=True).meter(3)) is Meter
    assert type(Screen().meter(3)) is Lines
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with Screen().meter(3) as meter:
        assert type(meter) is Bar
        meter.move(1.5, "half")
        meter.tell("[kept] line")
    captured = capsys.readouterr()
    assert captured.out == "" and "[kept] line" in captured.err


def test_lines_show_life_with_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with Lines(10, Screen()) as meter:
        now[0] = 105.0
        meter.move(1, "early")
        now[0] = 120.0
        meter.move(2, "run a")
        meter.move(5, "run b")
        meter.tell("run a: done")
        meter.log("run b: done")
        meter.move(10, "run b")
        meter.log("all")
    assert capsys.readouterr().err.splitlines() == [
        "run a: 20% done, 1 min 20 s left", "run a: done", "run b: done, 20 s left", "all",
    ]  # fmt: skip


def flags(**changes: bool) -> Namespace:
    return Namespace(**{"quiet": False, "no_color": False, "strict": False, "threads": None, **changes})


def test_notes_of_the_kernels_are_shown_once_and_only_within(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("minisparse.kernels")
    handlers = list(logging.getLogger("minisparse").handlers)
    with context.context(flags()):
        log.info("compiling kernels (once)")
    log.info("after")
    assert capsys.readouterr().err == "minisparse: note: compiling kernels (once)\n"
    with context.context(flags(quiet=True)):
        log.info("compiling kernels (once)")
    assert capsys.readouterr().err == ""
    assert logging.getLogger("minisparse").handlers == handlers


def test_warnings_are_one_line_and_errors_when_strict(capsys: pytest.CaptureFixture[str]) -> None:
    with context.context(flags()):
        warnings.warn("close\nto collapse", MinisparseWarning, stacklevel=1)
        np.float32(1e38) * np.float32(10)
    assert capsys.readouterr().err == "minisparse: warning: close to collapse\n"
    with pytest.raises(MinisparseWarning), context.context(flags(strict=True)):
        warnings.warn("close to collapse", MinisparseWarning, stacklevel=1)


def test_timing_leaves_the_warm_up_out() -> None:
    calls: list[int] = []
    assert len(timed(lambda: calls.append(1), 5)) == 5
    assert len(calls) == 5 + bench_train.WARM_UP


def test_quartiles_and_ratios() -> None:
    assert quartiles([0.001, 0.002, 0.003, 0.004, 0.005]) == pytest.approx((2, 3, 4))
    assert (ratio(3.0, 2.0), ratio(3.0, None)) == (1.5, None)


def test_a_training_step_learns_its_batch() -> None:
    """What is timed is a whole step: weights of every layer move, and the loss on the batch falls."""
    case = Case("lenet-300-100", (20, 784), 1, {})
    network = make(case.model, (784,), 10)
    step = bench_train.step(case, network)
    cells = dict(zip(step.__code__.co_freevars, (c.cell_contents for c in step.__closure__), strict=True))
    loss, x, target = (cells[name] for name in ("loss", "x", "target"))
    before, value = network.state(), loss.value(network.forward(x), target)
    for _ in range(10):
        step()
    assert loss.value(network.forward(x), target) < value
    assert all((after != before[key]).any() for key, after in network.state().items())


def test_records_carry_reference_and_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("lenet-300-100", (10, 784), 30, {1: 2.0})
    monkeypatch.setattr(bench_train, "CASES", (case,))
    monkeypatch.setattr(bench_train, "torch_times", lambda threads, quick: {"lenet-300-100": 4.0})
    (row,) = dense_records((1,), quick=True)
    assert (row["threads"], row["steps"], row["batch"]) == (1, 3, 10)
    assert row["q25_ms"] <= row["median_ms"] <= row["q75_ms"]
    assert row["ours/reference"] == row["median_ms"] / 2.0
    assert row["ours/torch"] == row["median_ms"] / 4.0
    monkeypatch.setattr(bench_train, "torch_times", lambda threads, quick: {})
    (row,) = dense_records((1,), quick=True)
    assert row["torch_ms"] is row["ours/torch"] is None


def test_dense_rows_come_first_and_sparse_ones_after_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_train, "dense_records", lambda threads, quick: [{"model": threads}])
    monkeypatch.setattr(bench_sparse_training, "records", lambda threads, quick: [{"sparse step": quick}])
    assert bench_train.records((1, 2), True) == [{"model": (1, 2)}, {"sparse step": True}]


def test_another_framework_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_train, "find_spec", lambda name: None)
    assert bench_train.torch_times(1) == {}
    monkeypatch.setattr(bench_train, "find_spec", lambda name: object())
    monkeypatch.setattr(bench_train, "TORCH_STEP", "import no_such_module")
    assert bench_train.torch_times(1) == {}
    monkeypatch.setattr(
        bench_train,
        "TORCH_STEP",
        "import json, sys; job = json.load(sys.stdin); print(json.dumps({c[0]: c[2] for c in job['cases']}))",
    )
    assert bench_train.torch_times(1, quick=True) == {case.model: case.count(True) for case in CASES}


def test_cases_fit_their_models() -> None:
    assert {case.model: case.reference for case in CASES} == {
        "lenet-300-100": {1: 1.39, 2: 1.12}, "lenet-5": {1: 11.2, 2: 6.6}, "resnet-20": {1: 420, 2: 230},
    }  # fmt: skip
    small = Case("lenet-5", (2, 1, 28, 28), 1, {})
    assert measure(small, 1, quick=True)["model"] == "lenet-5"
