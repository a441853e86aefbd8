"""E4: a grid on several processes gives what one process gives, whatever dies on the way."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path

import dask
import numba
import psutil
import pytest
from distributed import Client
from distributed.comm import CommClosedError

from minisparse.cli import jobs
from minisparse.cli.main import main
from minisparse.cli.threads import limited
from minisparse.errors import MinisparseError, UsageError
from minisparse.experiments import distributed, workers
from minisparse.experiments.compare import compare
from minisparse.experiments.plan import plan
from minisparse.experiments.runner import unfinished
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.store import Store
from minisparse.experiments.tickets import Climb, Ladder
from minisparse.training import keeper, snapshot
from tests.reliability import faults, storm
from tests.reliability.processes import ended, until

TINY = {"model": "mlp:64-6-10", "epochs": 1, "batch": 512}
LONGER = {"model": "mlp:64-6-10", "epochs": 3, "batch": 256}  # 6 steps an epoch
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
        with dask.config.set({"temporary-directory": place}), workers.local(2) as found:
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


def test_a_cell_whose_worker_died_goes_on_from_its_snapshot(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit; killed at step 9, saved at step 6, which is the end of an epoch."""
    monkeypatch.setattr(distributed, "cell", faults.midway)
    specs = [RunSpec("rigl", (("every", "2"),), seed=seed, **LONGER) for seed in range(10, 13)]
    with Store(tmp_path / "two") as store, Store(tmp_path / "one") as alone:
        found = distributed.compare_on(client, specs, store, threads=1, shared=True)
        with limited(1):
            expected = compare(specs, alone)
        assert ended([o.to_json() for o in found]) == ended([o.to_json() for o in expected])
    assert storm.networks(tmp_path / "one") == storm.networks(tmp_path / "two")
    for seed in range(10, 13):
        assert faults.steps(seed) == [list(range(10)), list(range(7, 19))]
    assert not list(tmp_path.glob("*/unfinished/*"))


def test_workers_that_see_no_files_of_ours_start_again(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "cell", faults.midway)
    with Store(tmp_path) as store:
        (found,) = distributed.compare_on(client, [RunSpec("dense", seed=20, **LONGER)], store, threads=1)
    assert found.status == "done" and faults.steps(20) == [list(range(10)), list(range(19))]
    assert not (tmp_path / "unfinished").exists()


def test_a_grid_that_was_stopped_goes_on_amid_its_cells(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What this process has saved of a run is gone on from by a worker."""
    spec = RunSpec("dense", **LONGER)
    with Store(tmp_path) as store, monkeypatch.context() as patch:
        patch.setattr(keeper, "SECONDS", 0.0)
        with limited(1), pytest.raises(KeyboardInterrupt):
            compare([spec], store, progress=interrupt_at(2 / 3))
        assert snapshot.latest(unfinished(tmp_path, spec)) == 6
        monkeypatch.setattr(distributed, "cell", faults.midway)
        (found,) = distributed.compare_on(client, [spec], store, threads=1, shared=True)
        with limited(1):
            (expected,) = compare([spec], Store(tmp_path / "alone"))
        assert ended([found.to_json()]) == ended([expected.to_json()])
    assert faults.steps(0)[-1] == list(range(7, 19))


def interrupt_at(share: float) -> Callable[..., None]:
    def progress(done: float, spec: RunSpec, outcome: object) -> None:
        if done >= share:
            raise KeyboardInterrupt

    return progress


def test_a_ladder_is_climbed_by_one_worker_and_its_cells_follow(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workers that climb are killed on the way; tickets and results are those of one process."""
    ladder = Ladder((0.5, 0.8), (30, 31), rounds=3, rewind=0.25, training=LONGER)
    specs = [cell.spec for cell in ladder.cells]
    own = Climb(ladder, tmp_path / "two")
    with Store(tmp_path / "two") as two, Store(tmp_path / "one") as one:
        found = distributed.compare_on(
            client, specs, two, threads=1, shared=True, execute=partial(faults.climbing, own), alone=own.alone
        )
        with limited(1):
            expected = compare(specs, one, execute=Climb(ladder, tmp_path / "one").execute)
        assert ended([o.to_json() for o in found]) == ended([o.to_json() for o in expected])
    for place in ("networks", "tickets"):
        assert storm.networks(tmp_path / "one", place) == storm.networks(tmp_path / "two", place)
    length = ladder.chain(30).build().length(18)
    for seed in (30, 31):
        assert faults.steps(seed) == [list(range(10)), list(range(7, length + 1))]
    assert not list(tmp_path.glob("*/unfinished/*"))


def test_a_worker_that_is_lost_but_lives_is_ended_before_its_cell_is_given_away(client: Client) -> None:
    """So a snapshot has one writer at a time."""
    cells = distributed.Cells(client, [], distributed.Task())
    address = min(cells.workers())
    one = distributed.UnderWay(SPECS[0], address, cells._process(address), "")
    process = one.process.pid
    assert psutil.pid_exists(process) and one.over()
    assert not psutil.pid_exists(process)
    assert distributed.UnderWay(SPECS[0], "tcp://elsewhere:1", cells._process("tcp://elsewhere:1"), "").over()
    # its nanny may give it up; whoever asks for the workers then gets it back
    assert until(lambda: len(cells.workers()) == 2, 60)


def test_workers_that_their_nannies_give_up_come_again(client: Client) -> None:
    """A nanny gives up if what it starts dies, which happens when several die at once."""
    cells = distributed.Cells(client, [], distributed.Task())
    cluster, before = client.cluster, cells.workers()
    name = min(cluster.workers)
    cluster.sync(cluster.workers[name].close)
    cluster.workers.pop(name, None)
    assert until(lambda: len(cells.workers() - before) == 1)


def test_a_grid_whose_workers_stay_away_ends_in_one_line(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "SECONDS_WITHOUT", 0.1)
    monkeypatch.setattr(distributed.Cells, "workers", lambda cells: set())
    with Store(tmp_path) as store, pytest.raises(MinisparseError, match="got none for 0 s") as caught:
        distributed.compare_on(client, SPECS[:1], store, shared=True)
    assert "\n" not in str(caught.value)


def test_workers_that_die_while_they_start_are_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def cluster(**settings: object) -> str:
        calls.append(settings["n_workers"])
        if len(calls) < bad:
            raise RuntimeError("Nanny failed to start.")
        return "cluster"

    monkeypatch.setattr(workers, "LocalCluster", cluster)
    bad = workers.STARTS
    assert workers._cluster(2) == "cluster" and calls == [2, 2, 2]
    bad = 99
    with pytest.raises(MinisparseError, match="got 'Nanny failed to start.' 3 times, expected 2"):
        workers._cluster(2)


def test_a_cluster_that_goes_away_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "Client", lambda address, timeout: nullcontext("client"))
    words = "no more answers from the scheduler at 'tcp://x:1'"
    with pytest.raises(MinisparseError, match=words) as caught, workers.remote("tcp://x:1"):
        raise CommClosedError("reset by peer")
    assert "\n" not in str(caught.value)


def test_a_missing_library_or_cluster_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(workers, "CONNECT", "200ms")
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


def test_another_scheduler_on_this_machine_does_not_matter() -> None:
    """Its page has the port that is usual for them; warnings are errors here."""
    with socket.socket() as taken:
        with suppress(OSError):  # somebody else's already
            taken.bind(("127.0.0.1", 8787))
            taken.listen()
        with workers.local(1) as found:
            assert found.submit(sum, (1, 2), pure=False).result() == 3
