"""Other libraries: asked in another process, about the same matrices, and done without when they fail."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from minisparse.experiments import bench_others as others
from minisparse.experiments.bench_cases import CASES, columns, problem

CASE = replace(CASES[0], shapes=((6, 8),), sparsities=(0.5, 0.75), batch=1)
ROWS = replace(CASES[3], shapes=((6, 8),), sparsities=(0.5,), batch=3)
# Answers with a number that depends on everything the script is given.
ECHO = """
def limit(threads):
    global now
    now = threads

def works(dense, indptr, indices, values, x):
    sparse = np.zeros_like(dense)
    sparse[np.repeat(np.arange(len(dense)), np.diff(indptr)), indices] = values
    return {"mkl_s": (lambda: 0, float((sparse @ x).sum()), x.flags.c_contiguous)}

def median(work):
    return [now, *work[1:]]
"""


@pytest.fixture
def present(monkeypatch):
    """Both libraries are there, and each script is ECHO or fails."""
    monkeypatch.setattr(others, "find_spec", lambda name: object())
    monkeypatch.setattr(others, "mkl_library", lambda: "libmkl_rt.so")
    monkeypatch.setattr(others, "TORCH", "import no_such_module")
    monkeypatch.setattr(others, "MKL", ECHO)


def test_another_process_draws_the_same_matrices(present):
    found = others.others((CASE, CASES[8], ROWS), (1, 2), quick=True)
    assert found[1] == {}  # not a product that other libraries have
    assert list(found[0]) == [((6, 8), s, count) for s in (0.5, 0.75) for count in (1, 2)]
    for case, answers in ((CASE, found[0]), (ROWS, found[2])):
        for (shape, sparsity, threads), answer in answers.items():
            drawn = problem(case.masks, case.kernel, shape, sparsity)
            x = columns(drawn, case.batch, case.by_rows)
            expected = float(((drawn.dense * drawn.mask) @ x).sum())
            assert answer["mkl_s"] == [threads, pytest.approx(expected, abs=1e-4), not case.by_rows]


def test_a_library_that_is_not_there_is_not_asked(monkeypatch):
    monkeypatch.setattr(others, "find_spec", lambda name: None)
    monkeypatch.setattr(others, "mkl_library", lambda: None)
    monkeypatch.setattr(others, "asked", lambda script, job: pytest.fail("asked"))
    assert others.others((CASE,), (1,)) == [{}]


def test_a_library_that_fails_is_as_one_that_is_not_there(monkeypatch):
    job = {"path": sys.path, "threads": [1], "problems": []}
    for script in ("import no_such_module", "print('not JSON')\nraise SystemExit"):
        assert others.asked(script, job) == []


def test_where_mkl_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(others.ctypes.util, "find_library", lambda name: None)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    monkeypatch.delenv("MKLROOT", raising=False)
    assert others.mkl_library() is None
    library = tmp_path / "root" / "lib" / "libmkl_rt.so.2"
    library.parent.mkdir(parents=True)
    library.touch()
    monkeypatch.setenv("MKLROOT", str(tmp_path / "root"))
    assert others.mkl_library() == str(library)


def test_scripts_compile_and_the_project_loads_neither_library():
    for script in (others.TORCH, others.MKL):
        compile(others.BEGIN + script + others.END, "script", "exec")
    assert "torch" not in sys.modules
    assert np.isfinite(others.TIMEOUT)
