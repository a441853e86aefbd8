"""E4: a grid on several processes gives what one process gives, whatever dies on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import dask
import numba
import pytest
from distributed import Client
from distributed.comm import CommClosedError

from minisparse.cli import jobs
from minisparse.cli.main import main
from minisparse.cli.threads import limited
from minisparse.errors import MinisparseError, UsageError
from minisparse.experiments import distributed
from minisparse.experiments.compare import compare
from minisparse.experiments.plan import plan
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.store import Store
from tests.reliability import faults, storm
from tests.reliability.processes import ended

TINY = {"model": "mlp:64-6-10", "epochs": 1, "batch": 512}
# one with products so large that a second thread of BLAS would be used for them, and change bits
SPECS = [
    *plan(["magnitude", "rigl"], [0.5, 0.9], 1, **TINY),
    RunSpec("magnitude", model="mlp:64-100-10", epochs=1, batch=1437),
    RunSpec("dense", model="lenet-5", epochs=1, batch=719, dtype="float64"),
    RunSpec("dense", rate="constant:lr=1e30", **TINY),
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Two workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(faults.PLACE, str(tmp_path_factory.mktemp("faults")))
        place = str(tmp_path_factory.mktemp("dask"))
        with dask.config.set({"temporary-directory": place}), distributed.local(2) as found:
            yield found


def test_two_workers_give_what_one_process_gives(client: Client, tmp_path: Path) -> None:
    """Bit for bit, times apart, in whatever order the cells are run."""
    seen: list[float] = []
    with Store(tmp_path / "one") as one, Store(tmp_path / "two") as two:
        with limited(1):
            alone = compare(SPECS, one)
        shared = distributed.compare_on(
            client, SPECS[::-1], two, lambda done, *rest: seen.append(done), threads=1
        )
        assert [o.spec for o in shared] == SPECS[::-1]
        assert all(outcome.network is None for outcome in shared)
        assert ended([o.to_json() for o in shared[::-1]]) == ended([o.to_json() for o in alone])
        assert {"done", "diverged"} == {o.status for o in alone}
    assert storm.networks(tmp_path / "one") == storm.networks(tmp_path / "two")
    assert len(storm.networks(tmp_path / "one")) == 2 * len(SPECS)
    assert seen == sorted(seen) and seen[-1] == len(SPECS)


def test_kernels_are_compiled_here_while_workers_run(client: Client) -> None:
    """Numba reads its thread count from the environment at every compilation, and refuses another one."""
    numba.get_num_threads()  # launches the threads
    assert numba.njit(lambda x: x + 1)(1) == 2
    assert client.submit(lambda: numba.config.NUMBA_NUM_THREADS, pure=False).result() == max(
        1, numba.config.NUMBA_NUM_THREADS // 2
    )


def test_what_is_stored_is_not_run_again_and_a_cell_given_twice_runs_once(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(tmp_path) as store:
        first = distributed.compare_on(client, [SPECS[0], SPECS[1], SPECS[0]], store, threads=1)
        assert [o.spec for o in first] == [SPECS[0], SPECS[1], SPECS[0]]
        monkeypatch.setattr(client, "submit", None)
        again = distributed.compare_on(client, SPECS[:2], store)
        assert [o.to_json() for o in again] == [o.to_json() for o in first[:2]]


def test_an_error_in_a_cell_is_one_failed_run(client: Client, tmp_path: Path) -> None:
    misfit = RunSpec("synflow", **(TINY | {"model": "mlp:64-6-10:tanh"}))
    with Store(tmp_path) as store:
        one, two = distributed.compare_on(client, [misfit, SPECS[0]], store, threads=1)
    assert (one.status, two.status) == ("failed", "done") and "homogeneous" in one.note


def test_a_dead_worker_costs_its_cell_which_is_tried_once_more(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "cell", faults.cell)
    specs = [RunSpec("random", seed=seed, **TINY) for seed in range(6)]
    with Store(tmp_path) as store:
        found = {o.spec.seed: o for o in distributed.compare_on(client, specs, store, threads=1)}
        expected = {o.spec.seed: o for o in compare(specs, Store(tmp_path / "alone"))}
        assert {seed: o.status for seed, o in found.items()} == {
            seed: "failed" if seed in (1, 3) else "done" for seed in range(6)
        }
        assert found[1].note == "RuntimeError: its worker process died twice (killed, or out of memory)"
        assert found[3].note == "RuntimeError: the run asked for exit status 3"
        for seed in (0, 2, 4, 5):
            assert ended([found[seed].to_json()]) == ended([expected[seed].to_json()])
        assert [faults.deaths(seed) for seed in range(6)] == [1, 2, 2, 1, 1, 1]
        monkeypatch.undo()
        again = distributed.compare_on(client, specs, store, threads=1)
        assert {o.status for o in again} == {"done"}  # what failed is tried again by the next command


def test_workers_that_die_while_they_start_are_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def cluster(**settings: object) -> str:
        calls.append(settings["n_workers"])
        if len(calls) < bad:
            raise RuntimeError("Nanny failed to start.")
        return "cluster"

    monkeypatch.setattr(distributed, "LocalCluster", cluster)
    bad = distributed.STARTS
    assert distributed._cluster(2) == "cluster" and calls == [2, 2, 2]
    bad = 99
    with pytest.raises(MinisparseError, match="got 'Nanny failed to start.' 3 times, expected 2"):
        distributed._cluster(2)


def test_a_cluster_that_goes_away_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "Client", lambda address, timeout: nullcontext("client"))
    words = "no more answers from the scheduler at 'tcp://x:1'"
    with pytest.raises(MinisparseError, match=words) as caught, distributed.remote("tcp://x:1"):
        raise CommClosedError("reset by peer")
    assert "\n" not in str(caught.value)


def test_a_missing_library_or_cluster_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(distributed, "CONNECT", "200ms")
    argv = ["compare", "--methods", "random", "--sparsities", "0.5", "--seeds", "1", "--epochs", "1", "-q"]
    assert main([*argv, "--cluster", "tcp://127.0.0.1:9"]) == 2
    assert main([*argv, "--cluster", "nonsense://x"]) == 2
    assert main([*argv, "--cluster", "tcp://127.0.0.1:9", "--jobs", "2"]) == 2
    monkeypatch.setattr(jobs, "find_spec", lambda name: None)
    assert main([*argv, "--jobs", "2"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and all(line.startswith("minisparse: error[MS100]: ") for line in lines)
    assert "minisparse[cluster]" in lines[3]
    with pytest.raises(UsageError, match="expected one of them"), jobs.pool(2, "tcp://x:1", None):
        pass
