"""run, inspect, export, report and compare on networks of a few hundred weights."""

import csv
import json
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy import sparse
from threadpoolctl import threadpool_info

from minisparse.cli import export, jobs, pages, run
from minisparse.cli.main import main
from minisparse.experiments.runner import Outcome, execute
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.store import Store
from minisparse.methods.base import Scored
from minisparse.nn.network import Network
from minisparse.nn.weight import MaskedWeight
from minisparse.weights.csr import CSRWeight

MODEL = "mlp:64-8-10"
TINY = ["--model", MODEL, "--epochs", "2", "--batch", "256"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing a report takes longer than all the training here."""
    monkeypatch.setattr(
        pages, "write_report", lambda outcomes, networks, folder, title: folder / "report.html"
    )


def call(argv: list[str], capsys: pytest.CaptureFixture[str], status: int = 0) -> Any:
    """Parsed stdout of a command that must end with this status; what was printed before is dropped."""
    capsys.readouterr()
    assert main([*argv, "--json"]) == status, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def made(*argv: str) -> tuple[str, Network]:
    """Key and network of a run made by the command."""
    assert main(["run", *argv, *TINY, "-q"]) == 0
    with Store("minisparse-runs") as store:
        (outcome,) = store.all()
        return outcome.spec.key, store.network(outcome.spec.key)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[RunSpec]:
    """The specs that `run` would execute; each is interrupted at once."""
    specs = []

    def stop(spec: RunSpec, *rest: Any) -> Outcome:
        specs.append(spec)
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "execute", stop)
    return specs


def test_flags_become_the_spec(seen: list[RunSpec], capsys: pytest.CaptureFixture[str]) -> None:
    flags = [
        "--sparsity",
        "0.5",
        "--schedule",
        "rounds:3",
        "--allocation",
        "erk",
        "--norm",
        "2",
        "--normalize",
    ]
    training = [
        "--optimizer",
        "adam",
        "--lr",
        "0.01",
        "--init",
        "orthogonal",
        "--dtype",
        "float64",
        "--seed",
        "3",
    ]
    assert main([*flags, "run", "magnitude"]) == 2  # settings stand after the command
    assert main(["run", "magnitude", *flags, *training, *TINY, "-q"]) == 130
    settings = {"sparsity": 0.5, "schedule": "rounds:3", "allocation": "erk", "norm": 2, "normalize": True}
    assert seen == [
        RunSpec(
            "magnitude", tuple(settings.items()), MODEL, seed=3, epochs=2, batch=256,
            optimizer="adam", rate="cosine:lr=0.01", init="orthogonal", dtype="float64",
        )
    ]  # fmt: skip
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("minisparse: interrupted: ") and "the same command" in line


def test_a_setting_may_be_switched_off(seen: list[RunSpec]) -> None:
    for flag in ("--normalize", "--no-normalize"):
        assert main(["run", "magnitude", flag, *TINY]) == 130
    assert [spec.settings for spec in seen] == [(("normalize", "true"),), ()]


def test_every_training_flag_reaches_the_spec() -> None:
    """What `run` and `compare` accept beyond a method's settings is exactly a RunSpec's fields."""
    given = {
        "model": MODEL,
        "data": "moons",
        "optimizer": "adam",
        "rate": "step",
        "init": "x",
        "storage": "csr",
        "epochs": 1,
        "batch": 2,
    }
    args = run.Namespace(lr=None, **given)
    found = set(run.training_settings(args)) | {"method", "settings", "seed", "dtype", "weights"}
    assert found == set(RunSpec.__dataclass_fields__)


def test_run_tells_and_keeps(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["run", "magnitude", "--sparsity", "0.75", *TINY]
    assert main(argv) == 0
    captured = capsys.readouterr()
    assert [line[:9] for line in captured.err.splitlines() if line.startswith("epoch")] == [
        "epoch   1",
        "epoch   2",
    ]
    total = [line for line in captured.out.splitlines() if line.split()[:1] == ["total"]]
    assert len(total) == 1 and "148 / 592" in total[0] and "0.7500" in total[0]
    first = call(argv, capsys)
    assert (first["kept"], first["total"], first["status"]) == (148, 592, "done")
    assert first == call(argv, capsys)  # not made again: the measured times are the same
    again = call([*argv, "--fresh"], capsys)
    assert again["accuracy"] == first["accuracy"] and again["seconds"] != first["seconds"]
    assert call(["inspect", first["key"][:6]], capsys)["layers"] == first["layers"]


def test_status_of_bad_endings(capsys: pytest.CaptureFixture[str]) -> None:
    collapsed = ["run", "magnitude", "--sparsity", "0.99", *TINY]
    assert call(collapsed, capsys)["status"] == "collapsed"
    assert call([*collapsed, "--strict"], capsys, 1)["status"] == "collapsed"
    diverged = call(["run", "dense", "--lr", "1e30", *TINY], capsys, 1)
    assert (diverged["status"], diverged["accuracy"]) == ("diverged", None)
    assert main(["run", "dense", "--lr", "1e30", *TINY]) == 1
    captured = capsys.readouterr()
    assert "diverged: training diverged at step" in captured.out and "Warning" not in captured.err


def test_threads_are_limited_within_and_restored_after(monkeypatch: pytest.MonkeyPatch) -> None:
    def counts() -> set[int]:
        return {numba.get_num_threads(), *(pool["num_threads"] for pool in threadpool_info())}

    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    before, seen = counts(), []

    def stop(*rest: Any) -> Outcome:
        seen.append(counts())
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "execute", stop)
    assert main(["run", "dense", *TINY, "--threads", "1"]) == 130
    assert (seen, counts()) == ([{1}], before)


@pytest.mark.parametrize("where", ["key", "folder", "file"])
def test_inspect_finds_networks(where: str, capsys: pytest.CaptureFixture[str]) -> None:
    key, network = made("magnitude", "--sparsity", "0.5")
    folder = Path("minisparse-runs") / "networks" / key
    name = {"key": key[:8], "folder": str(folder), "file": str(folder / "manifest.json")}[where]
    found = call(["inspect", name], capsys)
    masks = network.masks()
    assert [row["kept"] for row in found["layers"]] == [int(mask.sum()) for mask in masks.values()]
    assert [row["dead_in"] for row in found["layers"]] == [
        int((~mask.any(axis=0)).sum()) for mask in masks.values()
    ]
    assert found["forward_seconds"] > 0
    assert main(["inspect", name]) == 0
    out = capsys.readouterr().out
    assert "296 / 592" in out and "measured:" in out and ("asked 0.5000" in out) is (where == "key")


def test_damaged_networks_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    key, _ = made("magnitude")
    weights = next((Path("minisparse-runs") / "networks" / key).glob("weights-*"))
    capsys.readouterr()
    content = weights.read_bytes()
    for spoiled in (content[:-1], b"", content[:-1] + bytes([content[-1] ^ 1])):
        weights.write_bytes(spoiled)
        for argv in (["inspect", key], ["export", key, "--to", "npz"]):
            assert main(argv) == 3
            captured = capsys.readouterr()
            assert captured.out == "" and captured.err.count("\n") == 1 and weights.name in captured.err


def present(network: Network) -> dict[str, np.ndarray]:
    return {name: layer.weight.dense() for name, layer in network.prunable().items()}


def test_export_is_exact(capsys: pytest.CaptureFixture[str]) -> None:
    key, network = made("rigl", "--sparsity", "0.5")
    weights, masks = present(network), network.masks()
    for form in ("npz", "safetensors"):
        (entry,) = call(["export", key[:5], "--to", form], capsys)
        arrays = dict(np.load(entry["file"])) if form == "npz" else load_file(entry["file"])
        for name, weight in weights.items():
            np.testing.assert_array_equal(arrays[f"{name}.weight"], weight)
            np.testing.assert_array_equal(arrays[f"{name}.mask"], masks[name])
            assert tuple(arrays[f"{name}.geometry"]) == network.prunable()[name].weight.geometry
        np.testing.assert_array_equal(arrays["fc1.bias"], network.params()["fc1.bias"].value)
        assert len(arrays) == 3 * len(weights) + 2
    written = call(["export", key, "--to", "scipy", "--file", "matrices"], capsys)
    assert {Path(entry["file"]).parent.name for entry in written} == {"matrices"}
    for name, weight in weights.items():
        matrix = sparse.load_npz(Path("matrices") / f"{name}.npz")
        np.testing.assert_array_equal(matrix.toarray(), weight)
        assert matrix.nnz == masks[name].sum()  # grown weights that are still 0 are stored
    assert json.loads(Path("matrices/geometry.json").read_text())["fc1"] == [8, 64, 1, 1]
    (entry,) = call(["export", key, "--to", "csv"], capsys)
    with open(entry["file"], newline="") as stream:
        rows = list(csv.DictReader(stream))
    for name, weight in weights.items():
        found = np.zeros_like(weight)
        own = [row for row in rows if row["array"] == f"{name}.weight"]
        for row in own:
            found[int(row["row"]), int(row["column"])] = np.float32(row["value"])
        np.testing.assert_array_equal(found, weight)
        assert len(own) == masks[name].sum()


def test_csr_stores_what_is_present_and_zero() -> None:
    mask = np.array([[True, False, True], [False, False, False], [False, True, False]])
    weight = np.array([[1, 0, 0], [0, 0, 0], [0, -0.5, 0]], dtype=np.float32)
    matrix = export.to_csr(MaskedWeight(weight, mask=mask))
    assert matrix.nnz == 3 and matrix.has_canonical_format and matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix.toarray(), weight)
    np.testing.assert_array_equal(matrix.indices, [0, 2, 1])


def test_a_network_trained_in_a_format_is_kept_and_exported_in_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key, network = made("set", "--sparsity", "0.75", "--storage", "csr")
    weights = {name: layer.weight for name, layer in network.prunable().items()}
    dense = {name: weight.dense() for name, weight in weights.items()}
    assert {type(w) for w in weights.values() if w.kept < w.size} == {CSRWeight}
    with monkeypatch.context() as patch:  # no matrix is needed
        patch.setattr(CSRWeight, "dense", None)
        patch.setattr(CSRWeight, "mask", None)
        for form in ("scipy", "csv"):
            assert main(["export", key, "--to", form, "--file", f"out-{form}"]) == 0
    for name, weight in weights.items():
        matrix = sparse.load_npz(Path("out-scipy") / f"{name}.npz")
        np.testing.assert_array_equal(matrix.toarray(), dense[name])
        assert matrix.nnz == weight.kept
    found = call(["run", "set", "--sparsity", "0.75", "--storage", "csr", *TINY], capsys)
    assert found["key"] == key and found["spec"]["storage"] == "csr"  # it was there already
    masked = call(["run", "set", "--sparsity", "0.75", *TINY], capsys)
    assert masked["key"] != key and "storage" not in masked["spec"]
    assert masked["kept"] == found["kept"]
    assert masked["history"][-1]["loss"] == pytest.approx(found["history"][-1]["loss"], rel=1e-2)


def test_compare_trains_in_a_format(no_page: None, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [
        "compare",
        "--methods",
        "random",
        "--sparsities",
        "0.8",
        "--seeds",
        "1",
        "--storage",
        "csr",
        *TINY,
    ]
    found = call(argv, capsys)
    assert {o["spec"]["storage"] for o in found["outcomes"]} == {"csr"}
    assert {o["status"] for o in found["outcomes"]} == {"done"}


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["l0", "--storage", "csr"], "MS104", "method L0 cannot train in storage 'csr'"),
        (["set", "--storage", "csrr"], "MS102", "Did you mean 'csr'?"),
        (["set", "--storage", "condensed"], "MS201", "layer 'fc1', condensed weight"),
    ],
)
def test_storage_that_cannot_be_is_one_line(
    argv: list[str], code: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *argv, *TINY, "-q"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"minisparse: error[{code}]: ") and words in line


def test_export_keeps_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    key, _ = made("dense")
    argv = ["export", key, "--to", "csv", "--file", "a.csv"]
    assert [main(argv), main(argv), main([*argv, "--force"])] == [0, 2, 0]
    assert "--force" in capsys.readouterr().err


def test_export_writes_conv_columns_channel_fastest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "dense", "--model", "lenet-5", "--epochs", "1", "--batch", "1438", "-q"]) == 0
    with Store("minisparse-runs") as store:
        (outcome,) = store.all()
        network = store.network(outcome.spec.key)
    (entry,) = call(["export", outcome.spec.key, "--to", "npz"], capsys)
    arrays = np.load(entry["file"])
    out, channels, kh, kw = arrays["conv2.geometry"]
    kernel = arrays["conv2.weight"].reshape(out, kh, kw, channels)  # as the documentation says
    x = np.random.default_rng(0).standard_normal((1, channels, 5, 5)).astype(np.float32)
    y = network.prunable()["conv2"].forward(x) - arrays["conv2.bias"][None, :, None, None]
    patch = x[0, :, :kh, :kw]  # with padding 1 the output at (1, 1) sees exactly this corner
    np.testing.assert_allclose(y[0, :, 1, 1], np.einsum("oyxc,cyx->o", kernel, patch), rtol=1e-4, atol=1e-5)


GRID = ["compare", "--methods", "magnitude,rigl", "--sparsities", "0.5,0.99", "--seeds", "2", *TINY]


def test_compare_end_to_end(capsys: pytest.CaptureFixture[str]) -> None:
    found = call(GRID, capsys)
    assert [(row["method"], row["sparsity_asked"], row["runs"]) for row in found["rows"]] == [
        ("dense", 0, 2), ("magnitude", 0.5, 2), ("magnitude", 0.99, 2), ("rigl", 0.5, 2), ("rigl", 0.99, 2),
    ]  # fmt: skip
    assert len(found["outcomes"]) == 10 and found["verdict"]
    page = Path(found["report"])
    assert page.is_file() and list((page.parent / "plots").glob("*.png"))


def test_compare_prints_table_and_verdict(no_page: None, capsys: pytest.CaptureFixture[str]) -> None:
    found = call(GRID, capsys)
    assert main(GRID) == 0  # nothing is made again
    captured = capsys.readouterr()
    assert captured.err == "10 of 10 runs are in minisparse-runs already\ndrawing the report\n"
    for row in found["rows"]:
        cells = {row["method"], f"{row['sparsity_asked']:g}", f"{row['sparsity']:.4f}"}
        assert any(cells <= set(line.split()) for line in captured.out.splitlines())
    assert all(sentence in captured.out for sentence in found["verdict"])
    assert "report: minisparse-runs/report.html" in captured.out.replace("\\", "/")
    assert {"collapsed", "done"} <= {outcome["status"] for outcome in found["outcomes"]}
    assert main([*GRID, "--strict", "-q"]) == 1


def test_report_lists_and_selects(
    monkeypatch: pytest.MonkeyPatch, no_page: None, capsys: pytest.CaptureFixture[str]
) -> None:
    key, _ = made("magnitude")
    assert main(["run", "dense", *TINY, "-q"]) == 0
    rows = call(["report"], capsys)
    assert {row["spec"]["method"] for row in rows} == {"magnitude", "dense"}
    assert main(["report"]) == 0
    out = capsys.readouterr().out
    assert "2 runs in minisparse-runs" in out and all(row["key"] in out for row in rows)
    seen = []

    def page(outcomes: list[Outcome], networks: dict[str, Network], folder: Path, title: str) -> Path:
        seen.append(([outcome.spec.key for outcome in outcomes], title))
        return folder / "report.html"

    monkeypatch.setattr(pages, "write_report", page)
    assert main(["report", key[:10], key, "--title", "<b>"]) == 0
    assert main(["report", "all"]) == 0
    assert seen == [([key], "<b>"), (sorted(row["key"] for row in rows), "minisparse: stored runs")]
    capsys.readouterr()
    assert main(["report", "zz"]) == 2
    assert capsys.readouterr().err.startswith("minisparse: error[MS102]: run 'zz' not found")


def test_compare_tells_each_run(no_page: None, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["compare", "--methods", "magnitude", "--sparsities", "0.5", "--seed", "4", "--seeds", "1", *TINY]
    assert main(argv) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[")]
    assert [line[:5] for line in lines] == ["[1/2]", "[2/2]"] and "magnitude 0.5" in lines[1]
    assert all("seed 4: done" in line for line in lines)
    assert main([*argv, "--fresh"]) == 0
    assert "[2/2]" in capsys.readouterr().err


def test_an_interrupted_grid_resumes(
    no_page: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def third_is_interrupted(spec: RunSpec, *rest: Any) -> Outcome:
        calls.append(spec.key)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return execute(spec, *rest)

    def watched(specs: Any, store: Store, progress: Any, data_dir: Any) -> list[Outcome]:
        return plain(specs, store, progress, data_dir, execute=third_is_interrupted)

    plain = jobs.compare
    monkeypatch.setattr(jobs, "compare", watched)
    assert main([*GRID, "-q"]) == 130
    line = capsys.readouterr().err
    assert line == (
        "minisparse: interrupted: 2 of 10 runs are saved in minisparse-runs; the same command resumes\n"
    )
    assert main([*GRID, "-q"]) == 0
    assert len(calls) == 3 + 8 and calls[2] == calls[3]  # the two finished ones were not made again


def test_a_failed_run_leaves_the_grid_incomplete(
    no_page: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(self: Scored, *rest: Any) -> None:
        raise RuntimeError("no luck")

    monkeypatch.setattr("minisparse.methods.saliency.magnitude.Magnitude.score", broken)
    found = call(GRID, capsys, 4)
    statuses = {outcome["spec"]["method"]: outcome["status"] for outcome in found["outcomes"]}
    assert statuses["magnitude"] == "failed" and statuses["dense"] == "done"
    monkeypatch.undo()
