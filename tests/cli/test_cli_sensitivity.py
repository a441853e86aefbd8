"""The verb `sensitivity`: its table, its JSON, its plot, and what it refuses."""

import json
from pathlib import Path

import pytest

from minisparse.cli import flags, sensitivity
from minisparse.cli.arguments import Parser
from minisparse.cli.context import context
from minisparse.errors import UnknownNameError, UsageError

TINY = ("--model", "mlp:64-8-10", "--epochs", "1", "--batch", "256", "-q")


def call(*tokens: str) -> int:
    parser = Parser("sensitivity", sensitivity.__doc__ or "", [*TINY, *tokens])
    flags.add_global(parser)
    sensitivity.add_arguments(parser)
    args = parser.parse()
    with context(args):
        return sensitivity.run(args)


def test_table_and_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--out", str(tmp_path), "--sparsities", "0,0.5,0.9") == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.startswith((" fc", "fc"))}
    assert set(rows) == {"fc1", "fc2"} and all(len(row) == 6 for row in rows.values())
    assert rows["fc1"][1:3] == ["512", rows["fc2"][2]]
    (plot,) = tmp_path.glob("sensitivity-*-magnitude.png")
    assert plot.read_bytes().startswith(b"\x89PNG") and str(plot) in out


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        call("--out", str(tmp_path), "--method", "snip", "--sparsities", "0.5", "--seed", "2", "--json") == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert (found["method"], found["model"], found["seed"]) == ("snip", "mlp:64-8-10", 2)
    assert [(p["layer"], p["sparsity"], p["kept"]) for p in found["points"]] == [
        ("fc1", 0.5, 256),
        ("fc2", 0.5, 40),
    ]
    assert all(0 <= p["accuracy"] <= 1 and p["loss"] > 0 for p in found["points"])
    assert Path(found["plot"]).is_file() and set(found["tolerated"]) == {"fc1", "fc2"}


def test_a_pattern_is_passed_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--out", str(tmp_path), "--pattern", "row", "--sparsities", "0.3", "--json") == 0
    kept = [p["kept"] for p in json.loads(capsys.readouterr().out)["points"]]
    assert kept[0] % 64 == 0 and kept[1] % 8 == 0


@pytest.mark.parametrize(
    ("tokens", "error"),
    [
        (("--method", "rigl"), UsageError),
        (("--method", "magnitud"), UnknownNameError),
        (("--sparsities", "0.5,1"), UsageError),
        (("--pattern", "rows"), UnknownNameError),
    ],
)
def test_what_cannot_be_done_is_refused_before_training(
    tokens: tuple[str, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        call(*tokens)
