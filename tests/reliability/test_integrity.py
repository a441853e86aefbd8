"""F-5: a flipped bit anywhere in a large checkpoint or snapshot is found. (Small ones: tests/training.)"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from minisparse.errors import CheckpointError
from minisparse.nn.loss import CrossEntropy
from minisparse.nn.lr import Constant
from minisparse.nn.models import make
from minisparse.nn.network import Network
from minisparse.nn.optim import Adam
from minisparse.training import checkpoint, files, snapshot
from minisparse.training.snapshot import Snapshot
from minisparse.training.state import TrainState
from tests.reliability.counts import examples

FLIPS = examples(300, 10_000, 100_000)
LEAST = 1 << 20  # bytes


def network() -> Network:
    """A quarter of a million weights, half of them pruned in one layer."""
    net = make("mlp:300-600-150-10", (300,), 10)
    weight = net.prunable()["fc2"].weight
    weight.rewire(np.random.default_rng(0).random(weight.shape) < 0.5)
    return net


def save_network(folder: Path) -> None:
    checkpoint.save(network(), folder, "magnitude", {"sparsity": "0.5"})


def save_run(folder: Path) -> None:
    net = network()
    x, t = np.zeros((2, 300), np.float32), np.zeros(2, int)
    state = TrainState(net, Adam(), CrossEntropy(), Constant(0.1), 0, 9, 3, x, t, x, t)
    net.forward(x)
    state.optimizer.step(net, 0.1)
    snapshot.save(Snapshot.of(state, {}, 0.0, {"seed": "0"}), folder)


KINDS: dict[str, tuple[Callable[[Path], None], Callable[[Path], object]]] = {
    "network": (save_network, checkpoint.load),
    "run": (save_run, snapshot.load),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_of_a_large_file_is_found(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, load = KINDS[kind]
    save(tmp_path)
    content = {path.name: bytearray(path.read_bytes()) for path in tmp_path.iterdir()}
    sizes = {name: len(held) for name, held in content.items()}
    assert sum(sizes.values()) > LEAST
    monkeypatch.setattr(files, "read", lambda path, limit: bytes(content[path.name]))
    load(tmp_path)  # whole, it loads
    rng = np.random.default_rng(FLIPS)
    names, shares = list(sizes), np.array(list(sizes.values())) / sum(sizes.values())
    for k in range(FLIPS):
        # every tenth in the small manifest, the others wherever the bits are
        name = min(sizes, key=lambda n: sizes[n]) if k % 10 == 0 else str(rng.choice(names, p=shares))
        at, bit = int(rng.integers(sizes[name])), 1 << int(rng.integers(8))
        content[name][at] ^= bit
        with pytest.raises(CheckpointError):
            load(tmp_path)
        content[name][at] ^= bit
    load(tmp_path)
