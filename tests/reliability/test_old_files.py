"""E9: files of every released version stay readable, with the numbers stated beside them; newer ones say so.

A release writes its files once: python -m tests.reliability.released.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minisparse
from minisparse.errors import CheckpointError
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.store import FILE, SCHEMA, Store
from minisparse.training import checkpoint, files, snapshot
from minisparse.training.forms import FORMS
from minisparse.weights.formats import FORMATS
from tests.reliability.released import FOLDER, NETWORKS, SPEC, STATED, facts_of, facts_of_run

VERSIONS = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())


@pytest.fixture(params=VERSIONS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the files of one version: reading may leave a log beside the results file."""
    return Path(shutil.copytree(FOLDER / request.param, tmp_path / request.param))


def stated(place: Path, name: str) -> Any:
    return json.loads((place / STATED).read_text())[name]


def assert_holds(found: dict[str, Any], told: dict[str, Any]) -> None:
    """Layers, kinds, masks and all numbers that are stored are equal; matrices that are computed, nearly.

    The matrix of a storage format, whose slots a version may lay out in an order of its own, is equal too.
    """
    kinds = {kind.__name__ for kind in FORMATS.values()}
    for name, weight in told.pop("weights").items():
        now = found["weights"][name]
        assert (now["kind"], now["mask"]) == (weight["kind"], weight["mask"]), name
        np.testing.assert_allclose(now["matrix"], weight["matrix"], rtol=1e-6, atol=1e-9, err_msg=name)
        if weight["kind"] in kinds:
            assert now["matrix"] == weight["matrix"], name
            for facts in (found, told):
                assert facts["state"].pop(f"{name}.weight")
    assert len(found.pop("weights")) == sum(kind in ("Linear", "Conv2d") for _, kind in told["layers"])
    assert json.loads(json.dumps(found)) == told


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(place: Path, name: str) -> None:
    manifest = checkpoint.read_manifest(place / name)
    assert (manifest.method, manifest.settings) == ("rigl", {"sparsity": "0.8"})
    assert_holds(facts_of(checkpoint.load(place / name)), stated(place, name))


def test_runs_in_the_middle(place: Path) -> None:
    found, told = facts_of_run(snapshot.load(place / "run")), stated(place, "run")
    assert_holds(found.pop("network"), told.pop("network"))
    assert json.loads(json.dumps(found)) == told


def test_results_and_their_keys(place: Path) -> None:
    """The same spec has the same key as then: what was finished is not run again."""
    told = stated(place, "result")
    key = told.pop("key")
    with Store(place) as store:
        (outcome,) = store.all()
        assert outcome == store.get(key)
    assert outcome.spec == RunSpec(**SPEC) and outcome.spec.key == key
    assert {k: v for k, v in outcome.to_json().items() if k in told} == told


def test_this_version_has_its_files_in_every_format_it_writes() -> None:
    place = FOLDER / minisparse.__version__
    found = [json.loads((place / name / "manifest.json").read_text())["format"] for name in NETWORKS]
    assert found == list(range(1, checkpoint.WITH_STRUCTURE + 1))
    (run,) = (place / "run").glob("*.json")
    assert json.loads(run.read_text())["format"] == snapshot.FORMAT
    text = "".join((place / name / "manifest.json").read_text() for name in ("stored", "described"))
    missing = [kind for kind in (*FORMS, *FORMATS) if f'"{kind}"' not in text]
    assert not missing, f"have these in tests/reliability/released.py: {missing}"


def reseal(path: Path, number: int) -> None:
    facts = json.loads(path.read_bytes())
    del facts["sha256"]
    path.write_bytes(files.encode(facts | {"format": number}))


def test_a_newer_file_is_an_error_that_says_so(place: Path) -> None:
    newer = "newer than this program: got {} {}, expected at most {}. Update minisparse."
    for name in NETWORKS:
        reseal(place / name / "manifest.json", checkpoint.WITH_STRUCTURE + 1)
        with pytest.raises(CheckpointError, match=newer.format("format", 4, 3)):
            checkpoint.load(place / name)
    reseal(next((place / "run").glob("*.json")), snapshot.FORMAT + 1)
    with pytest.raises(CheckpointError, match=newer.format("format", 2, 1)):
        snapshot.load(place / "run")
    with sqlite3.connect(place / FILE) as file:
        file.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    file.close()
    with pytest.raises(CheckpointError, match=newer.format("version", 2, 1)):
        Store(place)
