"""A small comparison with every kind of ending, made once: done, collapsed, diverged, failed."""

from dataclasses import replace
from pathlib import Path

import pytest

from minisparse.experiments.compare import compare
from minisparse.experiments.plan import plan
from minisparse.experiments.runner import Outcome, execute
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.store import Store
from minisparse.nn.network import Network

MODEL = "mlp:64-16-10"


@pytest.fixture(scope="session")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Outcome], dict[str, Network]]:
    """Outcomes, and the networks of those that have one."""
    common = {"model": MODEL, "epochs": 2, "batch": 128}
    specs = plan(["random", "magnitude", "rigl"], [0.9, 0.99], 2, **common)
    wild = RunSpec("magnitude", (("norm", "2"),), rate="constant:lr=1e30", seed=1, **common)
    unlucky = RunSpec("snip", **common)

    def one(spec: RunSpec, data_dir: object, watch: object) -> Outcome:
        if spec == unlucky:
            raise RuntimeError("a bolt from the\nblue")
        return execute(spec)

    with Store(tmp_path_factory.mktemp("runs")) as store:
        outcomes = compare([*specs, wild, unlucky], store, execute=one)
        keys = [o.spec.key for o in outcomes if store.has_network(o.spec.key)]
        return outcomes, {key: store.network(key) for key in keys}


@pytest.fixture
def outcomes(ended: tuple[list[Outcome], dict[str, Network]]) -> list[Outcome]:
    """Copies, which a test may change."""
    return [replace(outcome) for outcome in ended[0]]


@pytest.fixture
def networks(ended: tuple[list[Outcome], dict[str, Network]]) -> dict[str, Network]:
    """By key."""
    return dict(ended[1])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store, closed at the end."""
    with Store(tmp_path / "runs") as found:
        yield found
