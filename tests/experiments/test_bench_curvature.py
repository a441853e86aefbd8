"""`minisparse bench curvature`: what the rows hold and what is called how often; never how fast."""

from __future__ import annotations

import json
import logging

import numba
import numpy as np
import pytest
from threadpoolctl import threadpool_info

from minisparse.cli.main import main
from minisparse.curvature import exact_diagonal, gradient, hvp
from minisparse.experiments import bench_curvature
from minisparse.experiments.bench_curvature import Case, Sizes, alternate, cases, measure, records
from minisparse.methods.reconstruct.sparsegpt import inverse_factor

KEYS = [
    "work", "size", "threads", "median_ms", "q25_ms", "q75_ms", "against", "other_ms", "ours/other",
    "target", "ours/gradient",
]  # fmt: skip
TINY = Sizes(
    models=(("lenet-5", (2, 1, 8, 8)), ("mlp:6-5-4-10:tanh", (3, 6))),
    inverses=((7, 11),),
    layer=(3, 16),
    least=1,
    most=1,
    seconds=0.0,
)


@pytest.fixture(scope="module")
def rows():
    return records((1, 2), sizes=TINY)


def test_every_row_has_the_same_keys_in_the_same_order(rows):
    assert len(rows) == 2 * 9
    for row in rows:
        assert list(row) == KEYS


def test_what_is_compared_with_what(rows):
    found = {(r["work"], r["size"]): (r["against"], r["target"]) for r in rows if r["threads"] == 1}
    passes = "forward + 10 backward"
    assert found == {
        ("Hessian diagonal", "lenet-5 b2"): (passes, "P8: <= 2"),
        ("GGN diagonal", "lenet-5 b2"): (passes, "P8: <= 2"),
        ("Hessian-vector product", "lenet-5 b2"): ("gradient", None),
        ("Hessian diagonal", "mlp:6-5-4-10:tanh b3"): (passes, None),
        ("GGN diagonal", "mlp:6-5-4-10:tanh b3"): (passes, None),
        ("Hessian-vector product", "mlp:6-5-4-10:tanh b3"): ("gradient", None),
        ("inverse by blocks", "d = 7, 11 factors"): ("by vectors", "P9: <= 0.1"),
        ("SparseGPT", "3x16, 50 %"): ("by columns", "P9: <= 0.1"),
        ("factor for SparseGPT", "16x16"): ("inverse, then Cholesky", None),
    }


def test_numbers_belong_together(rows):
    for row in rows:
        assert 0 < row["q25_ms"] <= row["median_ms"] <= row["q75_ms"]
        assert row["ours/other"] == pytest.approx(row["median_ms"] / row["other_ms"])
        network = row["against"] in ("gradient", "forward + 10 backward")
        assert (row["ours/gradient"] is not None) == network


def test_threads_are_set_while_measuring_and_put_back(monkeypatch):
    seen = []

    def look() -> None:
        blas = {p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"}
        seen.append((numba.get_num_threads(), blas))

    monkeypatch.setattr(bench_curvature, "cases", lambda sizes: [Case("a", "b", look, "c", look)])
    before = numba.get_num_threads(), threadpool_info()
    records((1,), sizes=TINY)
    assert seen and all(found == (1, {1}) for found in seen)
    most = numba.config.NUMBA_NUM_THREADS
    records((most + 1,), sizes=TINY)
    assert seen[-1][0] == most
    assert (numba.get_num_threads(), threadpool_info()) == before


def counted(name: str, calls: list[str]):
    return lambda: calls.append(name)


def test_works_take_turns_after_a_first_call_that_does_not_count():
    calls: list[str] = []
    sizes = Sizes((), (), (1, 1), least=1, most=3, seconds=60.0)
    times = alternate({name: counted(name, calls) for name in "ab"}, sizes)
    assert calls == list("ab") * 4
    assert {name: len(t) for name, t in times.items()} == {"a": 3, "b": 3}


def test_no_more_rounds_than_the_least_when_time_is_up():
    calls: list[str] = []
    alternate({"a": counted("a", calls)}, Sizes((), (), (1, 1), least=2, most=100, seconds=0.0))
    assert len(calls) == 1 + 2


def test_a_slow_loop_is_called_once():
    calls: list[str] = []
    case = Case("w", "s", counted("ours", calls), "other", counted("theirs", calls), slow=True)
    row = measure(case, 1, Sizes((), (), (1, 1), least=4, most=4, seconds=0.0))
    assert calls.count("theirs") == 1 and calls.count("ours") == 1 + 4
    assert row["other_ms"] > 0


def test_notes_of_methods_are_held_back_and_warnings_are_not(caplog):
    log = logging.getLogger("minisparse.methods.sparsegpt")
    with caplog.at_level(logging.INFO):
        with bench_curvature.quiet():
            log.info("again")
            log.warning("careful")
        log.info("afterwards")
    assert [r.message for r in caplog.records] == ["careful", "afterwards"]


def test_what_is_timed_is_the_real_thing():
    """The works of a network's rows return what the functions of `curvature` return."""
    found = {case.work: case for case in cases(TINY) if case.size == "mlp:6-5-4-10:tanh b3"}
    network, loss, x, target = found["Hessian diagonal"].ours.args
    want = exact_diagonal(network, loss, x, target)
    for name, got in found["Hessian diagonal"].ours().items():
        np.testing.assert_array_equal(got, want[name])
    product = found["Hessian-vector product"].ours()
    assert any(np.abs(a).max() > 0 for a in product.values())
    assert set(product) == set(gradient(network, loss, x, target))
    zero = hvp(network, loss, x, target, {})
    assert all(not a.any() for a in zero.values())


def test_the_plain_factor_is_the_same_factor():
    x = np.random.default_rng(0).standard_normal((40, 12))
    gram = x.T @ x / 40
    u = bench_curvature.plain_factor(gram, 0.01)
    np.testing.assert_allclose(u, inverse_factor(gram, 0.01), atol=1e-12)
    damped = gram + 0.01 * np.mean(np.diag(gram)) * np.eye(12)
    np.testing.assert_allclose(u.T @ u @ damped, np.eye(12), atol=1e-12)


def test_the_command_measures_it(monkeypatch, capsys):
    monkeypatch.setattr(bench_curvature, "QUICK", TINY)
    assert main(["bench", "curvature", "--quick", "--threads", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    text = json.dumps(found)
    assert "inverse by blocks" in text and "P8: <= 2" in text


def test_full_and_quick_sizes_are_those_of_the_targets():
    models = dict(bench_curvature.FULL.models)
    assert models["lenet-5"] == models["lenet-5-caffe"] == (128, 1, 28, 28)
    assert bench_curvature.FULL.layer == (768, 3072)
    assert [d for d, _ in bench_curvature.FULL.inverses] == [500, 1000, 2000]
    assert set(bench_curvature.QUICK.models) <= set(bench_curvature.FULL.models)
