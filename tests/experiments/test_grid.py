"""Grids in TOML: axes, precedence, and what is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minisparse.errors import DataFormatError, MinisparseError, UnknownNameError, UsageError
from minisparse.experiments.grid import load, parse, shipped

TEXT = """
title = "two methods"
seeds = [3, 1]
epochs = 2
[[runs]]
method = ["random", "magnitude"]
model = ["lenet-300-100", "mlp:64-10"]
settings = { sparsity = [0.5, 0.9], schedule = "cubic" }
[[runs]]
method = "dense"
epochs = 4
seeds = 1
"""


def test_every_list_is_an_axis_and_runs_come_seed_by_seed():
    grid = parse(TEXT)
    assert grid.title == "two methods"
    pruned = [s for s in grid.specs if s.method != "dense"]
    assert len(pruned) == 2 * 2 * 2 * 2 and len(grid.specs) == 17
    assert [s.seed for s in grid.specs] == sorted(s.seed for s in grid.specs)
    assert {s.epochs for s in pruned} == {2}
    found = {(s.method, s.model, s.sparsity, s.seed) for s in pruned}
    assert len(found) == 16


def test_a_table_wins_over_the_top_and_an_argument_over_both():
    dense = next(s for s in parse(TEXT).specs if s.method == "dense")
    assert (dense.epochs, dense.seed) == (4, 0)
    specs = parse(TEXT, "grid", (7,), epochs=1, model="mlp:64-10").specs
    assert {(s.epochs, s.seed, s.model) for s in specs} == {(1, 7, "mlp:64-10")}
    assert len(specs) == 2 * 2 + 1  # runs that became equal are one run


@pytest.mark.parametrize("name", shipped())
def test_shipped_grids_can_be_built(name):
    grid = load(name)
    assert grid.title and len(grid.specs) > 2
    assert len({s.key for s in grid.specs}) == len(grid.specs)
    assert len({s.seed for s in grid.specs}) >= 3


@pytest.mark.parametrize(
    ("text", "error", "part"),
    [
        ("runs = [", DataFormatError, "not TOML"),
        ("", UsageError, "has no runs"),
        ("runs = 3", UsageError, "has no runs"),
        ("[[runs]]\nseeds = 1", UsageError, "has no method"),
        ("sedes = 1\n[[runs]]\nmethod = 'dense'", UnknownNameError, "Did you mean 'seeds'?"),
        ("[[runs]]\nmethod = 'dense'\nepoch = 1", UnknownNameError, "Did you mean 'epochs'?"),
        ("[[runs]]\nmethod = 'magnitud'", UnknownNameError, "Did you mean 'magnitude'?"),
        ("[[runs]]\nmethod = 'rigl'\nsettings = {evry = 3}", UnknownNameError, "Did you mean 'every'?"),
        ("[[runs]]\nmethod = 'rigl'\nsettings = 3", UsageError, "expected a table"),
        ("[[runs]]\nmethod = []", UsageError, "a text or a list"),
        ("[[runs]]\nmethod = 3", UsageError, "'method'"),
        ("[[runs]]\nmethod = 'dense'\nmodel = 3", UsageError, "'model'"),
        ("[[runs]]\nmethod = 'dense'\nmodel = [{}]", UsageError, "'model'"),
        ("[[runs]]\nmethod = 'dense'\nepochs = 0", UsageError, "epochs"),
        ("[[runs]]\nmethod = 'dense'\nepochs = 'two'", UsageError, "epochs"),
        ("[[runs]]\nmethod = 'dense'\nseeds = -1", UsageError, "seeds"),
        ("[[runs]]\nmethod = 'dense'\nseeds = [0, true]", UsageError, "seeds"),
        ("[[runs]]\nmethod = 'dense'\nseeds = 200000000", UsageError, "at most"),
    ],
)
def test_bad_grids_are_refused_in_a_line(text, error, part):
    with pytest.raises(error, match=part.replace("[", r"\[").replace("?", r"\?")) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there_or_not_text(tmp_path):
    with pytest.raises(UnknownNameError, match="dynamic"):
        load("dynamc")
    with pytest.raises(DataFormatError, match="cannot be read"):
        load(str(tmp_path / "none.toml"))
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(DataFormatError, match="not text"):
        load(str(tmp_path / "bytes.toml"))
    (tmp_path / "large.toml").write_bytes(b"#" * (1 << 21))
    with pytest.raises(DataFormatError, match="too large"):
        load(str(tmp_path / "large.toml"))


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, len(TEXT) - 1), piece=st.text(max_size=4), cut=st.integers(0, 6))
def test_a_damaged_grid_is_a_grid_or_one_error(at, piece, cut):
    try:
        parse(TEXT[:at] + piece + TEXT[at + cut :])
    except MinisparseError as error:
        assert "\n" not in str(error)
