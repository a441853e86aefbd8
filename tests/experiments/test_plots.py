"""Figures show what is there, in both themes, without a warning, and of nothing at all as well."""

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from itertools import combinations
from math import nan

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from minisparse.experiments.pictures import masks, pictured, wires
from minisparse.experiments.plots import (
    accuracy_against_sparsity,
    density_of_layers,
    shown_levels,
    training_curves,
)
from minisparse.experiments.runner import Outcome
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.summary import summarise
from minisparse.experiments.theme import DARK, LIGHT, Theme, in_lines, legend_columns, looks, png
from minisparse.nn.models import make
from minisparse.nn.network import Network
from minisparse.sparsity.measure import effective_masks

Networks = dict[str, Network]
OF_OUTCOMES = (accuracy_against_sparsity, density_of_layers, training_curves)
OF_NETWORKS = (masks, wires)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("draw", OF_OUTCOMES)
def test_figures_of_outcomes(outcomes: list[Outcome], draw: Callable[..., Figure], theme: Theme) -> None:
    check(draw(outcomes, theme=theme), theme)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("draw", OF_NETWORKS)
def test_figures_of_networks(
    outcomes: list[Outcome], networks: Networks, draw: Callable[..., Figure], theme: Theme
) -> None:
    check(draw(outcomes, networks, theme=theme), theme)


def check(figure: Figure, theme: Theme) -> None:
    """A picture on this theme's paper, with something on it."""
    picture = np.asarray(Image.open(BytesIO(png(figure))).convert("RGB"))
    paper = np.array([int(theme.paper[i : i + 2], 16) for i in (1, 3, 5)])
    blank = np.abs(picture.astype(int) - paper).max(axis=2) <= 2
    assert blank[0].all()
    assert 0.3 < blank.mean() < 0.99


def test_drawing_leaves_no_trace_in_the_settings(outcomes: list[Outcome]) -> None:
    before = dict(rcParams)
    accuracy_against_sparsity(outcomes, theme=DARK)
    assert dict(rcParams) == before


def test_every_row_is_a_point_and_every_collapse_a_cross(outcomes: list[Outcome]) -> None:
    wide = accuracy_against_sparsity(outcomes).axes[0]
    points = {round(float(y), 6) for line in wide.lines for y in np.atleast_1d(line.get_ydata())}
    for row in summarise(outcomes):
        if not np.isnan(row.accuracy):
            assert round(100 * row.accuracy, 6) in points
    crosses = [len(line.get_xdata()) for line in wide.lines if line.get_marker() == "x"]
    assert sum(crosses) == sum(o.status == "collapsed" for o in outcomes) > 0


def test_error_bars_are_the_spread(outcomes: list[Outcome]) -> None:
    rows = [r for r in summarise(outcomes) if r.method == "magnitude" and not np.isnan(r.spread)]
    wide = accuracy_against_sparsity(outcomes).axes[0]
    found = {
        round(float(abs(np.diff(segment[:, 1])[0])) / 2, 6)
        for bars in wide.collections
        if isinstance(bars, LineCollection)
        for segment in bars.get_segments()
        if len(segment) == 2
    }
    assert {round(100 * row.spread, 6) for row in rows} <= found


def free(strength: float, sparsity: float, accuracy: float, seed: int = 0) -> Outcome:
    """A run that found its sparsity."""
    spec = RunSpec("l0", (("strength", repr(strength)),), seed=seed)
    return Outcome(spec, accuracy=accuracy, sparsity=sparsity, total=100, kept=100 - round(100 * sparsity))


def test_methods_that_find_their_sparsity_stand_where_they_found_it() -> None:
    runs = [free(5.0, 0.97, 0.8), free(0.5, 0.4, 0.95), free(0.5, 0.5, 0.97, 1)]
    runs += [
        Outcome(RunSpec("magnitude", (("sparsity", repr(s)),)), accuracy=0.9, sparsity_asked=s, sparsity=s)
        for s in (0.8, 0.9)
    ]
    figure = accuracy_against_sparsity(runs)
    wide = figure.axes[0]
    points = [np.array(line.get_xydata(), dtype=float).reshape(-1, 2) for line in wide.lines]
    lines = {tuple(np.round(xy[:, 1], 6)): xy[:, 0] for xy in points}
    # one line over both strengths, at the means of what was found, not moved aside
    np.testing.assert_allclose(lines[96.0, 80.0], [0.55, 0.03], rtol=1e-12)
    # asked for: at the density of the setting, all moved by one factor so that bars do not hide each other
    asked = lines[90.0, 90.0]
    np.testing.assert_allclose(asked[0] / asked[1], 2.0, rtol=1e-9)
    np.testing.assert_allclose(asked, [0.2, 0.1], rtol=0.1)
    # ticks are the levels that were asked for, and everything is in view
    assert [text.get_text() for text in wide.get_xticklabels()] == ["80 %", "90 %"]
    left, right = wide.get_xlim()
    assert left > 0.6 and right < 0.03
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels.count("l0") == 1 and not any("strength" in label for label in labels)


def test_where_all_sparsities_are_found_they_are_the_ticks() -> None:
    wide = accuracy_against_sparsity([free(5.0, 0.9, 0.8), free(0.5, 0.5, 0.95)]).axes[0]
    assert [text.get_text() for text in wide.get_xticklabels()] == ["50 %", "90 %"]


@pytest.mark.parametrize("draw", OF_OUTCOMES)
def test_figures_of_little(draw: Callable[..., Figure]) -> None:
    failed = Outcome(RunSpec("rigl"), "failed", "x", sparsity_asked=0.9)
    lone = Outcome(RunSpec("dense"), accuracy=nan)
    for few in ([], [failed], [lone], [failed, lone]):
        png(draw(few))


def test_pictures_of_little(outcomes: list[Outcome]) -> None:
    png(masks(outcomes, {}))
    assert wires(outcomes, {}) is None
    assert wires([], {}) is None
    assert pictured([]) == []


def test_levels_shown_are_the_usual_one_and_the_last(outcomes: list[Outcome]) -> None:
    assert shown_levels(outcomes) == [0.9, 0.99]
    assert shown_levels([o for o in outcomes if o.sparsity_asked == 0.99]) == [0.99]
    assert shown_levels([o for o in outcomes if not o.sparsity_asked]) == []


def test_the_pictured_runs_are_pruned_and_of_one_seed(outcomes: list[Outcome]) -> None:
    found = pictured(outcomes)
    assert {o.spec.seed for o in found} == {0}
    assert {(o.spec.method, o.sparsity_asked) for o in found} == {
        (m, s) for m in ("random", "magnitude", "rigl") for s in (0.9, 0.99)
    }


def test_wires_are_the_kept_weights_in_colour_on_paths(outcomes: list[Outcome], networks: Networks) -> None:
    figure = wires(outcomes, networks)
    assert figure is not None
    runs = [o for o in pictured(outcomes) if o.sparsity_asked == 0.99]
    for axes, outcome in zip(figure.axes, runs, strict=False):
        chain = list(networks[outcome.spec.key].masks().values())
        on_path = sum(int(m.sum()) for m in effective_masks(chain))
        lines = [c for c in axes.collections if isinstance(c, LineCollection)]
        assert sum(len(c.get_segments()) for c in lines) == outcome.kept
        assert sum(len(c.get_segments()) for c in lines if c.get_zorder() == 2) == on_path
        assert any(f"{on_path} on a path" in text.get_text() for text in axes.texts)


def test_convolutions_have_masks_but_no_wires(outcomes: list[Outcome], networks: Networks) -> None:
    net = make("lenet-5", (1, 8, 8), 10)
    found = dict.fromkeys(networks, net)
    png(masks(outcomes, found))
    assert wires(outcomes, found) is None


def test_long_labels_stay_inside_the_figure(outcomes: list[Outcome], networks: Networks) -> None:
    long = (("norm", "2"), ("normalize", "true"))
    runs = [o for o in pictured(outcomes) if o.spec.method == "magnitude"]
    for sparsity in (0.9, 0.99):
        (run,) = [o for o in runs if o.sparsity_asked == sparsity]
        for at in ("0.2", "0.25", "0.3", "0.35"):
            schedule = ("schedule", f"cubic:begin={at},end=0.8,every=10")
            spec = RunSpec("magnitude", (("sparsity", repr(sparsity)), *long, schedule))
            outcomes.append(replace(run, spec=spec))
            networks[spec.key] = networks[run.spec.key]
    for figure in (draw(outcomes) for draw in OF_OUTCOMES):
        figure.draw_without_rendering()
        for legend in figure.legends:
            box, page = legend.get_window_extent(), figure.bbox
            assert page.x0 <= box.x0 and box.x1 <= page.x1
    for draw in OF_NETWORKS:
        figure = draw(outcomes, networks)
        figure.draw_without_rendering()
        texts = [text for at in figure.axes for text in at.findobj(Text) if text.get_weight() == "bold"]
        boxes = {text.get_text(): text.get_window_extent() for text in texts if text.get_text()}
        assert len(boxes) > 4
        for (one, a), (other, b) in combinations(boxes.items(), 2):
            assert not a.overlaps(b), (one, other)


def test_labels_break_after_commas_and_columns_are_as_many_as_fit() -> None:
    label = "magnitude (schedule=cubic:begin=0.1,end=0.8)"
    lines = in_lines(label, 2.0)
    assert "".join(lines.split()) == "".join(label.split()) and lines.count("\n") >= 1
    assert in_lines("rigl", 2.0) == "rigl"
    assert legend_columns(["rigl", "set"], 10.2) == 6
    assert legend_columns([label], 10.2) == 2 and legend_columns(["x" * 500], 10.2) == 1
    assert legend_columns([], 10.2) == 6


def test_methods_look_different_and_controls_are_grey() -> None:
    names = ("random", "magnitude", "gradient", "snip", "synflow", "set", "rigl", "imp")
    found = looks({name: name for name in names}, LIGHT)
    assert len({(look.color, look.marker) for look in found.values()}) == len(names)
    assert len({look.color for look in found.values()}) == len(names)
    assert found["random"].color == LIGHT.plain
    many = looks({f"rigl (every={k})": "rigl" for k in range(40)}, LIGHT)
    assert len(many) == 40


def test_png_is_small_and_of_one_kind(outcomes: list[Outcome]) -> None:
    content = png(accuracy_against_sparsity(outcomes))
    assert content.startswith(b"\x89PNG")
    assert Image.open(BytesIO(content)).mode == "P"
    assert content == png(accuracy_against_sparsity(outcomes))
