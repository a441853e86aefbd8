"""export --names, run --weights and inspect FILE, on networks of a few hundred weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minisparse.cli.main import main
from minisparse.errors import UsageError
from minisparse.exchange import fingerprint, from_torch, to_torch
from minisparse.experiments.export import record
from minisparse.experiments.reproduce import commands
from minisparse.experiments.runner import dataset, execute
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.store import Store
from minisparse.nn.models import make

TINY = ["--model", "mlp:64-8-10", "--epochs", "1", "--batch", "256"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def call(argv: list[str], capsys: pytest.CaptureFixture[str], status: int = 0) -> Any:
    """Parsed stdout of a command that must end with this status."""
    capsys.readouterr()
    assert main([*argv, "--json"]) == status, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def trained(capsys: pytest.CaptureFixture[str], *flags: str) -> Any:
    return call(["run", "magnitude", "--sparsity", "0.5", *TINY, *flags], capsys)


@pytest.mark.parametrize("form", ["safetensors", "npz"])
def test_what_export_writes_run_starts_from(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    key = trained(capsys)["key"]
    with Store("minisparse-runs") as store:
        network = store.network(key)
    for names in ("minisparse", "torch", "torch-prune"):
        argv = ["export", key, "--to", form, "--names", names, "--file", f"{names}.{form}"]
        (entry,) = call(argv, capsys)
        loaded = from_torch(entry["file"], "mlp:64-8-10", dataset("digits", None), absent_zeros=True)
        assert fingerprint(loaded) == fingerprint(network)
    argv = ["run", "dense", *TINY, "--weights", f"torch-prune.{form}", "--lr", "0.001"]
    found = call(argv, capsys)
    assert found["spec"]["weights"] == fingerprint(network) and found["key"] != key
    assert found["sparsity"] == 0.5
    with Store("minisparse-runs") as store:
        after = store.network(found["key"])
    for name, mask in network.masks().items():  # pruned stays pruned, and the small rate changed little
        np.testing.assert_array_equal(after.masks()[name], mask)
        weights = [net.prunable()[name].weight.dense() for net in (network, after)]
        assert 0 < np.abs(weights[0] - weights[1]).max() < 0.1 * np.abs(weights[0]).max()


def test_one_network_is_one_start_whatever_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    network = make("mlp:64-8-10", (64,), 10, seed=5)
    save_file(to_torch(network), "a.safetensors")
    np.savez("b.npz", **{f"net.{k}": v for k, v in to_torch(network).items()})
    first = trained(capsys, "--weights", "a.safetensors")
    capsys.readouterr()
    assert main(["run", "magnitude", "--sparsity", "0.5", *TINY, "--weights", "b.npz"]) == 0
    notes = capsys.readouterr().err
    assert "weights: fc1 <- net.fc1, fc2 <- net.fc2" in notes and "already there" in notes
    assert "b.npz on digits: test loss" in notes
    assert trained(capsys, "--weights", "b.npz")["key"] == first["key"] != trained(capsys)["key"]


def test_weights_are_told_wherever_a_run_is_named() -> None:
    spec = RunSpec("dense", model="mlp:64-8-10", epochs=1, weights="0123456789abcdef")
    assert "from weights 01234567" in spec.label
    with pytest.raises(UsageError, match="--weights FILE"):
        execute(spec)
    for wrong in ("0123", "x" * 16, 3):
        with pytest.raises(UsageError, match="16 hexadecimal"):
            RunSpec("dense", weights=wrong)  # type: ignore[arg-type]
    outcome = execute(RunSpec("dense", model="mlp:64-8-10", epochs=1, batch=512))
    outcome.spec = spec
    assert record(outcome)["weights"] == spec.weights
    (command,) = commands([outcome])
    assert command.endswith("--weights 0123456789abcdef.safetensors")


def test_inspect_shows_any_file(capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"a.weight": np.eye(4, dtype=np.float32), "n": np.array(3)}, "x.safetensors")
    found = call(["inspect", "x.safetensors"], capsys)
    rows = {row.pop("name"): row for row in found["tensors"]}
    assert rows == {
        "a.weight": {"shape": [4, 4], "dtype": "float32", "size": 16, "nonzero": 4, "bytes": 64},
        "n": {"shape": [], "dtype": "int64", "size": 1, "nonzero": 1, "bytes": 8},
    }
    assert main(["inspect", "x.safetensors"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(
        line.split() == ["a.weight", "4x4", "float32", "4", "/", "16", "0.7500", "64", "B"] for line in lines
    )


def test_inspect_of_a_checkpoint_file_shows_its_network(capsys: pytest.CaptureFixture[str]) -> None:
    key = trained(capsys)["key"]
    (file,) = Path(f"minisparse-runs/networks/{key}").glob("*.safetensors")
    assert "layers" in call(["inspect", str(file)], capsys)


BAD = {
    "missing": (["run", "dense", *TINY, "--weights", "no.npz"], 3, "no.npz"),
    "pickle": (["run", "dense", *TINY, "--weights", "net.pt"], 3, "save_file(model.state_dict()"),
    "model": (
        ["run", "dense", *TINY, "--weights", "w.safetensors"],
        3,
        "'fc2.weight' for layer 'fc2' does not fit: got shape (9, 8)",
    ),
    "padding": (["run", "dense", *TINY, "--weights", "w.safetensors", "--padding", "left"], 2, "padding"),
    "inspect": (["inspect", "no.safetensors"], 3, "no.safetensors"),
    "names": (["export", "w", "--to", "csv", "--names", "pytorch"], 2, "'torch'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_one_line(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv, status, words = BAD[case]
    Path("net.pt").write_bytes(b"\x80\x02.")
    save_file(
        {"fc1.weight": np.ones((8, 64)), "fc1.bias": np.ones(8), "fc2.weight": np.ones((9, 8))},
        "w.safetensors",
    )
    assert main(argv) == status
    captured = capsys.readouterr()
    assert captured.out == "" and words in captured.err.splitlines()[-1]
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("form", ["scipy", "csv"])
def test_tables_have_our_names_only(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    key = trained(capsys)["key"]
    assert main(["export", key, "--to", form, "--names", "torch"]) == 2
    assert "safetensors or npz" in capsys.readouterr().err


def test_padding_reaches_the_importer(capsys: pytest.CaptureFixture[str]) -> None:
    state = to_torch(make("resnet-20:0.125", (1, 8, 8), 10))
    foreign = {k.replace("fc.", "linear.").replace("block1_1", "layer1.0"): v for k, v in state.items()}
    foreign = {
        "".join([f"layer{k[5]}.{int(k[7]) - 1}", k[8:]]) if k.startswith("block") else k: v
        for k, v in foreign.items()
    }
    save_file(foreign, "r.safetensors")
    argv = [
        "run",
        "random",
        "--model",
        "resnet-20:0.125",
        "--epochs",
        "1",
        "--batch",
        "720",
        "--weights",
        "r.safetensors",
    ]
    assert main(argv) == 2
    assert "expected 'end'" in capsys.readouterr().err
    found = call([*argv, "--padding", "end"], capsys)
    assert found["spec"]["weights"] == fingerprint(make("resnet-20:0.125", (1, 8, 8), 10))


def test_exported_names_are_those_of_torch(capsys: pytest.CaptureFixture[str]) -> None:
    key = trained(capsys)["key"]
    (entry,) = call(["export", key, "--to", "safetensors", "--names", "torch"], capsys)
    assert set(load_file(entry["file"])) == {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}
