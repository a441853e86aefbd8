"""Pages and code agree: every method has its page, every test and picture that is named exists."""

import ast
import re

import pytest

from minisparse.methods.registry import catalogue
from minisparse.methods.structured.slimming import Slimming
from tests.contracts.test_every_method import CASES
from tests.docs import DOCS

import sections  # isort: skip

ROOT = DOCS.parent
PAGES = sorted(path for path in DOCS.rglob("*.md") if path.name != "_template.md")
GENERATED = ("idea", "equations", "code", "settings", "tests", "departures", "run", "paper")


def link(place, text):
    path, _, line = place.partition(":")
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    assert not line or lines[int(line) - 1].strip(), place
    return text or place


@pytest.mark.parametrize("name", catalogue())
def test_every_method_has_a_page_and_every_section_something_to_say(name):
    assert (DOCS / "methods" / f"{name}.md").is_file()
    for part in GENERATED:
        text = getattr(sections, part)(catalogue()[name], link)
        assert len(text) > 3 and "{{" not in text, part


def test_a_page_for_every_method_and_no_other():
    pages = {path.stem for path in (DOCS / "methods").glob("*.md")} - {"index", "_template"}
    assert pages == set(catalogue())


def test_reasons_are_read_as_the_contract_has_them():
    assert sections.exceptions() == {name: case.reason for name, case in CASES.items()}


def test_the_command_of_a_method_names_a_model_it_can_be_used_on():
    assert sections.suitable_model("magnitude") == "lenet-300-100"
    assert sections.suitable_model("slimming") == "vgg-small"
    assert Slimming.needs


def test_names_become_sentences():
    assert sections.sentence("test_obd_is_magnitude_on_relu_layers") == "OBD is magnitude on ReLU layers."


def test_text_of_a_docstring_means_itself():
    assert sections.literal("w * g_q <= `a*b` [H^-1]") == "w \\* g\\_q &lt;= `a*b` \\[H^-1\\]"
    assert sections.prose("so that\n\n    x = y       (1)\n\nholds").split("\n")[2].startswith("    x = y  ")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(DOCS).as_posix())
def test_tests_that_a_page_names_exist(page):
    for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text(encoding="utf-8")):
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert name in [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)], (
            path,
            name,
        )


def test_pictures_of_the_gallery_are_small():
    pictures = list((DOCS / "images" / "gallery").glob("*.png"))
    assert pictures and all(path.stat().st_size < 100_000 for path in pictures)
