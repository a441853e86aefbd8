"""The page: whole, closed to the outside, safe with any text, and hiding nothing."""

import csv
import json
import re
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from minisparse.experiments import report
from minisparse.experiments.export import harmless, write_csv, write_json
from minisparse.experiments.page import clean, node
from minisparse.experiments.runner import Outcome
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.summary import summarise, verdict
from minisparse.experiments.tables import fixed, scaled
from minisparse.nn.network import Network

VOID = {"meta", "img", "source", "br", "i"}
EVIL = "<script>alert('&\"')</script>"


class Reader(HTMLParser):
    """Tags, attributes and text of a page; complains of tags that are not closed in order."""

    def __init__(self, content: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "source", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text.append(data)

    @property
    def words(self) -> str:
        return "".join(self.text).replace("\u00a0", " ")


@pytest.fixture(scope="module")
def page(ended: tuple[list[Outcome], dict[str, Network]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the small comparison, its plots drawn once."""
    return report.write_report(*ended, tmp_path_factory.mktemp("page"), "A small comparison")


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of text: drawing takes longer."""
    monkeypatch.setattr(report, "_figures", lambda outcomes, networks, folder: {})


def test_everything_is_written(page: Path) -> None:
    names = {path.relative_to(page.parent).as_posix() for path in page.parent.rglob("*")}
    plots = {f"plots/{name}.png" for name in ("accuracy", "layers", "masks", "wires", "training")}
    assert names == {"report.html", "results.json", "results.csv", "plots"} | plots


def test_the_page_is_well_formed_and_has_its_sections(page: Path) -> None:
    reader = Reader(page.read_text(encoding="utf-8"))
    assert reader.tags[0] == ("html", {"lang": "en"})
    ids = [attributes["id"] for tag, attributes in reader.tags if tag == "section"]
    links = [attributes["href"] for tag, attributes in reader.tags if tag == "a"]
    assert len(set(ids)) == len(ids)
    assert {link.removeprefix("#") for link in links} <= set(ids)
    assert {"verdict", "accuracy", "table", "numbers", "layers", "masks", "training", "wrong"} <= set(ids)
    assert {"methods", "reproduce", "environment", "words"} <= set(ids)
    assert ("title", {}) in reader.tags
    assert "A small comparison" in reader.words


def test_nothing_comes_from_outside(page: Path) -> None:
    content = page.read_text(encoding="utf-8")
    reader = Reader(content)
    for tag, attributes in reader.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "form", "base")
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:image/png;base64,"))
    without_pictures = re.sub(r"base64,[A-Za-z0-9+/=]+", "", content)
    assert "://" not in without_pictures
    assert "url(" not in without_pictures
    assert "@import" not in without_pictures
    policy = next(a["content"] for t, a in reader.tags if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'")


def test_pictures_are_embedded_in_light_and_dark_with_a_description(page: Path) -> None:
    tags = Reader(page.read_text(encoding="utf-8")).tags
    images = [a for tag, a in tags if tag == "img"]
    dark = [a for tag, a in tags if tag == "source"]
    assert len(images) == len(dark) == 5
    files = {path.read_bytes() for path in (page.parent / "plots").iterdir()}
    assert {b64decode(a["src"].partition(",")[2]) for a in images} == files
    assert all(a["alt"] for a in images)
    assert all("dark" in a["media"] for a in dark)
    assert not files & {b64decode(a["srcset"].partition(",")[2]) for a in dark}


def test_every_run_is_on_the_page_the_bad_ones_with_their_reason(page: Path, outcomes: list[Outcome]) -> None:
    words = Reader(page.read_text(encoding="utf-8")).words
    statuses = {o.status for o in outcomes}
    assert statuses == {"done", "collapsed", "diverged", "failed"}
    for outcome in outcomes:
        assert outcome.spec.key in words
        assert outcome.note in words
    assert "RuntimeError: a bolt from the blue" in words
    bad = sum(o.status != "done" for o in outcomes)
    assert f"{bad} of {len(outcomes)} runs" in words
    for sentence in verdict(summarise(outcomes)):
        assert sentence in words
    for row in summarise(outcomes):
        assert row.label in words


def test_four_numbers_stand_under_four_names(page: Path) -> None:
    words = Reader(page.read_text(encoding="utf-8")).words
    for name in ("zeros in the mask", "bytes stored", "MACs, in theory", "time, measured"):
        assert name in words
    assert "A mask by itself makes nothing faster" in words


def test_references_settings_and_environment(page: Path, outcomes: list[Outcome]) -> None:
    words = Reader(page.read_text(encoding="utf-8")).words
    for reference in ("arXiv:1911.11134", "arXiv:1506.02626", "Rigging the Lottery", "Alpaydin"):
        assert reference in words
    assert "every=20" in words
    assert "norm=2" in words
    for name, value in outcomes[0].environment.items():
        assert name in words
        assert value in words
    for term in ("sparsity", "density", "MACs", "collapse"):
        assert term in words


@pytest.mark.usefixtures("no_figures")
def test_any_text_is_text(outcomes: list[Outcome], tmp_path: Path) -> None:
    facts = outcomes[3].spec.to_json() | {"method": EVIL, "model": EVIL, "data": EVIL, "rate": EVIL}
    settings = {"sparsity": "0.9", EVIL: EVIL}
    spec = RunSpec.stored(facts | {"settings": settings})
    layers = [replace(row, name=EVIL) for row in outcomes[3].layers]
    evil = replace(
        outcomes[3], spec=spec, status="collapsed", note=EVIL + "\x00\x1b[31m", layers=layers,
        environment={EVIL: EVIL},
    )  # fmt: skip
    page = report.write_report([evil, outcomes[0]], {}, tmp_path, EVIL)
    content = page.read_text(encoding="utf-8")
    assert "<script" not in content.lower()
    assert "\x00" not in content
    assert "\x1b" not in content
    reader = Reader(content)
    assert reader.words.count(EVIL) > 10


@pytest.mark.usefixtures("no_figures")
def test_pages_of_little(tmp_path: Path, outcomes: list[Outcome]) -> None:
    failed = [o for o in outcomes if o.status == "failed"]
    dense = [o for o in outcomes if o.spec.method == "dense"]
    for few in ([], failed, dense[:1]):
        Reader(report.write_report(few, {}, tmp_path, "x").read_text(encoding="utf-8"))


def test_a_page_with_figures_of_little(tmp_path: Path, outcomes: list[Outcome]) -> None:
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "wires.png").write_bytes(b"of an earlier report")
    page = report.write_report([o for o in outcomes if o.status == "failed"], {}, tmp_path, "x")
    assert not (tmp_path / "plots" / "wires.png").exists()
    Reader(page.read_text(encoding="utf-8"))


def test_json_has_everything(page: Path, outcomes: list[Outcome]) -> None:
    facts = json.loads((page.parent / "results.json").read_text())
    assert [Outcome.from_json(o).spec.key for o in facts["outcomes"]] == [o.spec.key for o in outcomes]
    assert facts["verdict"] == verdict(summarise(outcomes))
    assert len(facts["rows"]) == len(summarise(outcomes))


def test_csv_has_a_line_for_each_run(page: Path, outcomes: list[Outcome]) -> None:
    with (page.parent / "results.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["key"] for line in lines] == [o.spec.key for o in outcomes]
    for line, outcome in zip(lines, outcomes, strict=True):
        assert line["status"] == outcome.status
        assert line["method"] == outcome.spec.method
        if outcome.status == "done":
            assert float(line["accuracy"]) == outcome.accuracy
            assert int(line["bytes_csr"]) == outcome.bytes["csr"]
            assert int(line["macs"]) == outcome.macs


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_cells_are_never_formulas(tmp_path: Path, outcomes: list[Outcome], start: str) -> None:
    assert harmless(start + "1") == "'" + start + "1"
    assert harmless("a" + start) == "a" + start
    spec = RunSpec.stored({"method": start + "cmd", "model": start + "m"})
    write_csv([replace(outcomes[0], spec=spec, note=start + "note")], tmp_path / "x.csv")
    with (tmp_path / "x.csv").open(newline="") as stream:
        for row in csv.reader(stream):
            assert not any(cell.startswith(("=", "+", "@", "\t", "\r")) for cell in row)
            assert not any(re.match(r"-\D", cell) for cell in row)


def test_json_of_nothing(tmp_path: Path) -> None:
    write_json([], tmp_path / "x.json")
    write_csv([], tmp_path / "x.csv")
    assert json.loads((tmp_path / "x.json").read_text())["outcomes"] == []


def test_nodes_keep_text_in_order() -> None:
    found = node("p", "a", node("b", "1"), "c", "d", node("i", "2"), "e", class_="x")
    assert "".join(found.itertext()) == "a1cd2e"
    assert found.get("class") == "x"
    assert clean("a\x00b\x7f\n 5 %") == "ab\n 5\u00a0%"


def test_numbers_for_people() -> None:
    assert [scaled(n, "B") for n in (0, 999, 1000, 202440, 3.2e9, float("nan"))] == [
        "0 B", "999 B", "1.0 kB", "202.4 kB", "3.2 GB", "-",
    ]  # fmt: skip
    assert (fixed(1234.567, 1), fixed(float("nan"), 1)) == ("1,234.6", "-")
