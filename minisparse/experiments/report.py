"""write_report: one self-contained page, its plots as files beside it, and the results as JSON and CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from matplotlib.figure import Figure

from minisparse.experiments import parts, tables
from minisparse.experiments.export import write_csv, write_json
from minisparse.experiments.page import document, facts, node, picture, section
from minisparse.experiments.pictures import Networks, masks, wires
from minisparse.experiments.plots import accuracy_against_sparsity, density_of_layers, training_curves
from minisparse.experiments.runner import Outcome
from minisparse.experiments.summary import findings, summarise
from minisparse.experiments.theme import DARK, LIGHT, Theme, png
from minisparse.experiments.wording import CAPTIONS, COLUMNS, FOUR_NUMBERS, GLOSSARY
from minisparse.training.checkpoint import write_atomic

REPORT = "report.html"
PLOTS = "plots"
Draw = Callable[[Theme], Figure | None]


def write_report(outcomes: Sequence[Outcome], networks: Networks, folder: str | Path, title: str) -> Path:
    """Write report.html, results.json, results.csv and plots/ into `folder`; the path of the page.

    networks: by key, of the runs that are pictured (`pictures.pictured`); others are not looked at.
    """
    place = Path(folder)
    (place / PLOTS).mkdir(parents=True, exist_ok=True)
    write_json(outcomes, place / "results.json")
    write_csv(outcomes, place / "results.csv")
    figures = _figures(outcomes, networks, place / PLOTS)
    page = document(
        title, parts.head(outcomes, title), node("main", *_sections(outcomes, figures)), parts.foot()
    )
    write_atomic(place / REPORT, page)
    return place / REPORT


def _sections(outcomes: Sequence[Outcome], figures: dict[str, Element]) -> list[Element]:
    rows = summarise(outcomes)
    told = node("ul", *[node("li", f.text, class_=f.kind) for f in findings(rows)], class_="findings")
    return [
        parts.tiles(outcomes, rows),
        section("verdict", "What came out", told),
        section("accuracy", "Accuracy against sparsity", *_shown(figures, "accuracy")),
        section("table", "All numbers", tables.results(rows), node("p", COLUMNS), tables.runs(outcomes)),
        section("numbers", "Four numbers, never one", node("p", FOUR_NUMBERS), *parts.four_numbers(rows)),
        section("layers", "Where the kept weights are", *_shown(figures, "layers"), tables.layers(outcomes)),
        section("masks", "The masks", *_shown(figures, "masks", "wires")),
        section("training", "While training", *_shown(figures, "training")),
        tables.accidents(outcomes),
        section("methods", "The methods and the data", *parts.methods(outcomes), *parts.data(outcomes)),
        section("reproduce", "Do it again", *parts.reproduce(outcomes)),
        section("environment", "Where it ran", *parts.environments(outcomes)),
        section("words", "Words", facts(GLOSSARY)),
    ]


def _shown(figures: dict[str, Element], *names: str) -> list[Element]:
    """The figures that could be drawn."""
    found = [figures[name] for name in names if name in figures]
    return found or [node("p", "There is nothing to draw for these runs.")]


def _figures(outcomes: Sequence[Outcome], networks: Networks, folder: Path) -> dict[str, Element]:
    """Each figure in both themes; the light one is a file of its own as well."""
    draws: dict[str, Draw] = {
        "accuracy": lambda theme: accuracy_against_sparsity(outcomes, theme=theme),
        "layers": lambda theme: density_of_layers(outcomes, theme=theme),
        "masks": lambda theme: masks(outcomes, networks, theme=theme),
        "wires": lambda theme: wires(outcomes, networks, theme=theme),
        "training": lambda theme: training_curves(outcomes, theme=theme),
    }
    found = {}
    for name, draw in draws.items():
        light, dark = draw(LIGHT), draw(DARK)
        if light is None or dark is None:
            (folder / f"{name}.png").unlink(missing_ok=True)
            continue
        content = png(light)
        write_atomic(folder / f"{name}.png", content)
        alt, caption = CAPTIONS[name]
        found[name] = picture(content, png(dark), alt, caption)
    return found
