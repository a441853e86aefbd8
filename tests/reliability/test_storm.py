"""E3, E8: kills and Ctrl-C, at any moment: what was finished is kept, nothing else is left."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from minisparse.experiments.store import Store
from tests.reliability import storm
from tests.reliability.counts import examples
from tests.reliability.processes import marked, start, until

KILLS = examples(2, 100, 1_000)
LONG = 'seeds = 6\nepochs = {}\nbatch = 64\nmodel = "mlp:64-6-10"\n[[runs]]\nmethod = ["dense", "random"]\n'


def test_ctrl_c_ends_all_processes_and_says_what_is_kept(tmp_path: Path) -> None:
    (tmp_path / "long.toml").write_text(LONG.format(400))
    mark = f"interrupt-{os.getpid()}"
    argv = ["-m", "minisparse", "compare", "long.toml", "--jobs", "2", "--threads", "1", "--out", "out"]
    process = start(argv, tmp_path, mark, DASK_TEMPORARY_DIRECTORY=str(tmp_path / "dask"))
    assert until(lambda: storm.rows(tmp_path / "out") > 1 or process.poll() is not None, 60)
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to parent and workers alike
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert until(lambda: not marked(mark)), marked(mark)
    with Store(tmp_path / "out") as store:
        kept = len(store.all())
    assert 1 <= kept < 12
    told = "minisparse: interrupted: {} of 12 runs are saved in out; the same command resumes"
    # one may have been saved at the very moment of the interrupt
    assert err.splitlines()[-1] in (told.format(kept), told.format(kept - 1))
    assert "Traceback" not in err and out == ""
    assert not list((tmp_path / "dask").rglob("worker-*"))


def test_a_grid_survives_a_storm_of_kills(tmp_path: Path) -> None:
    """The first kill is the parent's, the second a worker's. More: python -m tests.reliability.storm."""
    found = storm.run(KILLS, tmp_path)
    assert not found.complaints and sum(found.kills.values()) == KILLS and found.grids >= 1
