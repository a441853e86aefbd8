"""explain --trace: every method, within 100 columns, and the numbers of the trace it prints."""

import json
import re

import numpy as np
import pytest

from minisparse.cli.main import main
from minisparse.cli.matrices import Panel, beside, vector
from minisparse.experiments.miniature import demonstration
from minisparse.experiments.trace import trace
from minisparse.methods.registry import catalogue

MATRIX_LINE = re.compile(r"^  (\s+(-?\d+\.\d+[x+]?|\.)){4}")


def printed(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(argv) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


@pytest.mark.parametrize("name", catalogue())
def test_every_method_is_shown_step_by_step(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(["explain", name, "--trace"], capsys)
    found = trace(demonstration(catalogue()[name].cls))
    shown, _, sources = text.partition("Equations that were computed")
    heading, idea, *rest = shown.splitlines()
    assert idea == catalogue()[name].idea
    assert max(len(line) for line in rest) <= 100
    assert f"kept      {found.kept} of {found.size}" in shown
    assert f"{found.loss[1]:.4f}" in shown and shown.count("(all training samples)") >= 1
    for event in found.events:
        assert f"{event.loss[0]:.4f} -> {event.loss[1]:.4f}" in " ".join(shown.split())
    assert ("there are no events" in shown) == (not found.events)
    for line, calls in found.calls:
        if line.equations:
            row = [x for x in sources.splitlines() if f" {line.name} " in x and line.place in x]
            assert row and row[0].split()[-1] == str(calls)
    if len(found.steps) <= 12:
        for step in found.steps:
            assert f"step {step.step:>3}  loss of the batch {step.loss:.4f}" in shown


def test_marks_are_those_of_the_masks(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(["explain", "set", "--trace"], capsys)
    blocks = text.split("\nstep ")
    found = trace(demonstration(catalogue()["set"].cls))
    first = next(b for b in blocks if "before training" in b)
    change = found.events[0].layers["fc1"]
    rows = [line for line in first.splitlines() if MATRIX_LINE.match(line)][:4]
    for line, left, values in zip(rows, change.left, change.values[0], strict=True):
        cells = line.split()
        assert [cell.endswith("x") for cell in cells] == left.tolist()
        assert [float(cell.rstrip("x")) for cell in cells] == pytest.approx(values.tolist(), abs=0.006)
    event = found.events[1]
    second = next(b for b in blocks if b.startswith("3, after the update"))
    rows = [line for line in second.splitlines() if MATRIX_LINE.match(line)]
    marks = "".join(line[:34] for line in rows)
    assert (marks.count("x"), marks.count("+")) == (event.total("left"), event.total("entered"))


def test_json_is_the_same_trace(capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads(printed(["explain", "rigl", "--trace", "--json"], capsys))
    found = trace(demonstration(catalogue()["rigl"].cls))
    assert facts["name"] == "rigl" and facts["idea"]
    assert [e["loss"] for e in facts["events"]] == [list(e.loss) for e in found.events]
    for told, event in zip(facts["events"], found.events, strict=True):
        for name, change in event.layers.items():
            assert told["layers"][name]["masks"] == [mask.tolist() for mask in change.masks]
    assert facts["functions"][0]["place"].startswith(("rigl.py:", "rules.py:"))


def test_a_seed_gives_another_network(capsys: pytest.CaptureFixture[str]) -> None:
    first, again, other = (
        printed(["explain", "snip", "--trace", "--seed", s], capsys) for s in ("0", "0", "1")
    )
    assert first == again != other


def test_long_trainings_leave_out_steps_and_repeated_events_are_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = printed(["explain", "imp", "--trace"], capsys)
    assert "more steps" not in text  # no more than 12 between two events
    text = printed(["explain", "acdc", "--trace"], capsys)
    found = trace(demonstration(catalogue()["acdc"].cls))
    short = [line for line in text.splitlines() if re.match(r"step \d+, after the update: .*, loss ", line)]
    full = [line for line in text.splitlines() if line.startswith("  kept  ") and "->" in line]
    assert short and len(short) + len(full) == len(found.events)


def test_a_trace_needs_a_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "MS101", "--trace"]) == 2
    assert "method" in capsys.readouterr().err


def test_panels_mark_scale_and_wrap() -> None:
    values = np.array([[1.25e-6, -2e-6], [0.0, 3.5e-6]])
    panel = Panel("score", values, np.array([["x", ""], [".", "+"]]))
    assert panel.title == "score / 1e-06"
    lines = [line.plain for line in beside([panel, panel], 80)]
    assert lines[0].split() == ["score", "/", "1e-06"] * 2
    assert lines[1].split() == ["1.25x", "-2.00"] * 2 and lines[2].split() == [".", "3.50+"] * 2
    assert len(beside([panel, panel], 30)) == 2 * len(lines)
    assert Panel("w", np.array([[np.inf, 0.5]]), np.array([["", ""]])).row(0).plain.split() == [
        "inf",
        "0.500",
    ]
    assert Panel("w", np.array([[-1e-9, 0.5]]), np.array([["", ""]])).row(0).plain.split()[0] == "0.000"
    assert Panel("w", np.zeros((1, 2)), np.array([["", ""]])).title == "w"


def test_vectors_are_numbers_or_a_shape() -> None:
    assert vector(np.array([0.5, -0.0, 1e-9])) == "0.5 0 1e-09"
    assert vector(np.zeros((5, 4))) == "5 x 4"
