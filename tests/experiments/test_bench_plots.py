"""Figures and page of the kernel benchmark: what is labelled, what is marked, what is written."""

import json
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from minisparse.experiments import bench_bars, bench_plots, bench_report, roofline
from minisparse.experiments.bench_cases import CASES, SHAPES
from minisparse.experiments.theme import DARK, LIGHT, png
from minisparse.weights.pattern import CSRPattern
from tests.experiments.bench_rows import even, synthetic

MACHINES = [
    {
        "threads": n,
        "bandwidth": {"L2": 200.0 * n, "RAM": 20.0 * n},
        "peak": {"sgemm": 100.0 * n, "fma": 150.0 * n},
    }
    for n in (1, 2)
]


@pytest.fixture(scope="module")
def rows():
    return synthetic()


def texts(figure):
    """All that is written in a figure."""
    figure.canvas.draw()
    legends = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return legends + [t.get_text() for axes in figure.axes for t in axes.texts]


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


@pytest.mark.parametrize("batch", [1, 256])
def test_times_have_a_panel_per_shape_and_threads_and_name_the_break_even(rows, batch):
    figure = bench_plots.times(rows, batch)
    assert titles(figure) == [
        f"W {shape}, batch {batch}, {threads}"
        for threads in ("1 thread", "2 threads")
        for shape in ("768x3072", "3072x768")
    ]
    found = texts(figure)
    assert {"dense, BLAS", "CSR, SciPy", "dense, PyTorch", "CSR, PyTorch", "break-even", "csr"} <= set(found)
    assert "CSR, MKL" not in found
    name = {1: "bitmask", 256: "panels"}[batch]
    assert found.count(f"{name} beats dense from {100 * even(name):.0f} %") == 4
    assert found.count("csr beats dense at all sparsities shown") == 4
    rings = [line for line in figure.axes[0].lines if line.get_fillstyle() == "none"]
    assert any(line.get_xdata()[0] == pytest.approx(even(name)) for line in rings)
    for axes in figure.axes:
        assert axes.get_yscale() == "log" and axes.get_xlabel() == bench_plots.SPARSITY
    ticks = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert any(tick.endswith("\u00b5s") for tick in ticks) and any(tick.endswith(" ms") for tick in ticks)


def test_memory_is_in_megabytes_with_the_dense_line(rows):
    figure = bench_plots.memory(rows)
    assert titles(figure) == ["W 768x3072, float32", "W 3072x768, float32"]
    assert "MB" in figure.axes[0].get_ylabel() and bench_plots.CSR_LEAST in texts(figure)
    flat = [line.get_ydata()[0] for line in figure.axes[0].lines if len(set(line.get_ydata())) == 1]
    assert 4 * 768 * 3072 / 1e6 in flat


@pytest.mark.parametrize("shape", [*SHAPES, (3, 5), (1, 1)])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
def test_the_formula_of_csr_is_that_of_the_pattern(shape, sparsity):
    nnz = round((1 - sparsity) * shape[0] * shape[1])
    pattern = CSRPattern.from_flat(np.arange(nnz), shape)
    assert bench_plots.csr_bits(f"{shape[0]}x{shape[1]}", sparsity) == 32 * nnz + pattern.bits


def test_sizes_prefer_masks_without_structure():
    rows = [
        {"kernel": kernel, "format": "csr", "sparsity": s, "bytes": size}
        for kernel, s, size in (("ViT-B/16", 0.9, 1), ("matvec unstructured", 0.9, 2), ("ViT-B/16", 0.8, 3))
    ]
    assert bench_plots.sizes(rows, "csr") == [(0.8, 3), (0.9, 2)]


def test_rooflines_name_their_ceilings(rows):
    figure = bench_bars.rooflines(rows, MACHINES)
    assert titles(figure) == ["1 thread", "2 threads"]
    found = texts(figure)
    assert {
        "L2 200 GB/s",
        "RAM 40 GB/s",
        "sgemm 100 GFLOP/s (dashed)",
        "fma 300 GFLOP/s",
        "dense",
        "matvec",
    } <= set(found)
    assert "flop/byte" in figure.axes[0].get_xlabel() and "GFLOP/s" in figure.axes[0].get_ylabel()
    points = {tuple(line.get_xydata()[0]) for line in figure.axes[0].lines if len(line.get_xydata()) == 1}
    first = next(r for r in rows if r["threads"] == 1)
    assert (first["flops"] / first["bytes_moved"], first["gflops"]) in points


def test_the_dense_point_of_a_product():
    row = {"flops": 20, "sparsity": 0.9, "bytes": 30, "bytes_moved": 130, "dense_bytes": 300, "dense_s": 1e-9}
    assert bench_bars.dense_point(row) == (pytest.approx(200 / 400), pytest.approx(200.0))


def test_bars_of_the_vit_layer(rows):
    figure = bench_bars.vit(rows)
    assert titles(figure) == [
        f"W 768x3072, batch {b}, {t}" for b in (1, 256) for t in ("1 thread", "2 threads")
    ]
    found = texts(figure)
    assert {"dense, BLAS", "structured, ours", "CSR, ours", "condensed, ours", bench_bars.BEST} <= set(found)
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["80 %", "90 %", "95 %", "99 %"]
    assert "5x csr" in found  # 1 / (0.1 + 0.1), the cheapest format at 90 %
    dense = [bar for bar in figure.axes[0].patches if bar.get_height() == pytest.approx(1e-3)]
    assert len(dense) == 4


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_figures_are_on_the_paper_of_their_theme(rows, theme):
    few = [r for r in rows if r["threads"] == 1]
    picture = np.asarray(
        Image.open(BytesIO(png(bench_bars.rooflines(few, MACHINES[:1], theme=theme)))).convert("RGB")
    )
    paper = [int(theme.paper[i : i + 2], 16) for i in (1, 3, 5)]
    assert (
        np.abs(picture[0, 0].astype(int) - paper).max() <= 2
        and np.unique(picture.reshape(-1, 3), axis=0).size > 9
    )


def test_figures_of_nothing():
    assert bench_report.figures([], []) == {}
    for figure in (
        bench_plots.times([], 1),
        bench_plots.memory([]),
        bench_bars.rooflines([], []),
        bench_bars.vit([]),
    ):
        assert png(figure)


def test_durations():
    wanted = {1e-9: "1 ns", 2e-6: "2 \u00b5s", 0.001: "1 ms", 0.05: "50 ms", 2.0: "2 s"}
    assert {seconds: bench_plots.duration(seconds) for seconds in wanted} == wanted


def test_the_folder_has_page_plots_and_records_that_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr(roofline, "machine", lambda threads, quick: MACHINES[threads - 1])
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    rows = synthetic(
        tuple(c for c in CASES if c.kernel in ("matvec unstructured", "ViT-B/16")), (1,), others=False
    )
    tables, paths = bench_report.write(rows, tmp_path / "deep" / "bench", quick=True)
    names = ["kernels.html", "kernels.json", "time-batch-1.png", "memory.png", "roofline.png", "vit.png"]
    assert [path.name for path in paths] == names and all(path.stat().st_size for path in paths)
    found = json.loads(paths[1].read_text())
    assert found["records"] == rows and found["quick"] is True and found["roofline"] == MACHINES[:1]
    assert found["variables"]["OPENBLAS_CORETYPE"] == "Haswell"
    page = paths[0].read_text()
    assert "OPENBLAS_CORETYPE" in page and "http" not in page.replace("http-equiv", "")
    assert page.count("<figure>") == 4 and "not measured" in page
    shown = dict(tables)
    assert len(shown) == 5 and len(shown["Sparse products: median times"]) == len(rows)
    first = shown["Sparse products: median times"][0]
    assert "torch_dense_s" not in first and first["sparsity"] == "10 %" and first["median_s"] == "1.9 ms"
