"""MkDocs hooks: method pages filled from the code, pages of the quoted files, and what a page must have.

Under `mkdocs build --strict` each warning given here is an error: a method without a page, a page without a
method, a missing or unknown placeholder, an empty section, prose too short to explain anything.
"""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# the site describes this checkout, whatever else is installed
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import check  # noqa: E402
import sections  # noqa: E402
from mkdocs.config.defaults import MkDocsConfig  # noqa: E402
from mkdocs.structure.files import File, Files, InclusionLevel  # noqa: E402
from mkdocs.structure.pages import Page  # noqa: E402
from mkdocs.utils import get_relative_url  # noqa: E402

from minisparse.methods.registry import catalogue  # noqa: E402

log = logging.getLogger("mkdocs.hooks.methods")
PLACEHOLDER = re.compile(r"\{\{ *(\w+) *\}\}")
# heading of a page -> the placeholder below it; None: prose only
SECTIONS = {
    "The idea": None,
    "Equations": "equations",
    "The code": "code",
    "Settings": "settings",
    "What is tested": "tests",
    "Departures": "departures",
    "Run it": "run",
    "Reference": "paper",
}
FILLED = ("idea", *(name for name in SECTIONS.values() if name))
IDEA_WORDS = 40
QUOTED = (
    "minisparse/methods",
    "minisparse/weights",
    "minisparse/sparsity",
    "minisparse/curvature",
    "minisparse/testing",
    "tests/methods",
)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The page of every method, by family, below the page of methods in the navigation."""
    families = []
    for family, entries in sections.families().items():
        pages = [f"methods/{entry.name}.md" for entry in entries]
        # a missing page is reported once, in on_files, and not as a dead link of every other page
        families.append({family: [page for page in pages if (ROOT / "docs" / page).is_file()]})
    for item in config.nav or []:
        if isinstance(item, dict) and "Methods" in item:
            item["Methods"] = ["methods/index.md", *(part for part in families if any(part.values()))]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each file that is quoted; compare the method pages with the catalogue."""
    for path in quoted_files():
        text = (ROOT / path).read_text(encoding="utf-8")
        fence = "~~~~~~"
        head = "---\nsearch:\n  exclude: true\nhide: [navigation, toc]\n---\n"
        content = f'{head}# {path}\n\n{fence} {{ .py linenums="1" }}\n{text}{fence}\n'
        page = File.generated(config, f"source/{path}.md", content=content)
        page.inclusion = InclusionLevel.NOT_IN_NAV
        files.append(page)
    pages = {Path(f.src_uri).stem for f in files if f.src_uri.startswith("methods/")} - {"index", "_template"}
    for name in sorted(set(catalogue()) - pages):
        log.warning(
            "method '%s' has no page: expected docs/methods/%s.md, as in docs/methods/_template.md",
            name,
            name,
        )
    for name in sorted(pages - set(catalogue())):
        log.warning("docs/methods/%s.md is the page of no method: see minisparse list methods", name)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill the placeholders of a page under methods/."""
    place = page.file.src_uri
    if not place.startswith("methods/"):
        return markdown
    name = Path(place).stem

    def link(target: str, text: str) -> str:
        path, _, line = target.partition(":")
        file = files.get_file_from_path(f"source/{path}.md")
        if file is None:
            log.warning("%s quotes %s, which is not in docs/hooks.py QUOTED", place, target)
            return target
        anchor = f"#__codelineno-0-{line}" if line else ""
        # HTML: the anchors of lines exist in the page but in no table of contents
        return f'<a href="{get_relative_url(file.url, page.url)}{anchor}">{text or target}</a>'

    if name == "index":
        parts = {family: sections.table(entries) for family, entries in sections.families().items()}
        parts = {key.replace("-", "_"): value for key, value in parts.items()} | {
            "promises": sections.promises(link)
        }
        return filled(markdown, parts, place)
    if name not in catalogue():
        return markdown
    for problem in problems(markdown):
        log.warning("%s: %s", place, problem)
    entry = catalogue()[name]
    return filled(markdown, {key: getattr(sections, key)(entry, link) for key in FILLED}, place)


def filled(markdown: str, parts: dict[str, str], place: str) -> str:
    """The page with each placeholder replaced; a warning for one that does not exist or is left out."""
    asked = set(PLACEHOLDER.findall(markdown))
    for name in sorted(asked ^ set(parts)):
        log.warning("%s: placeholder '%s' %s", place, name, "unknown" if name in asked else "missing")
    return PLACEHOLDER.sub(lambda found: parts.get(found[1], found[0]), markdown)


def problems(markdown: str) -> list[str]:
    """What a method's page lacks."""
    found = [] if re.match(r"# \S", markdown) else ["the first line is not the title"]
    bodies = re.split(r"^## +(.+?) *$", markdown, flags=re.MULTILINE)
    below = dict(zip(bodies[1::2], bodies[2::2], strict=True))
    order = [heading for heading in below if heading in SECTIONS]
    found += [f"no section '{heading}'" for heading in SECTIONS if heading not in below]
    if order != [heading for heading in SECTIONS if heading in below]:
        found.append(f"sections out of order: expected {', '.join(SECTIONS)}")
    for heading, name in SECTIONS.items():
        if name and name not in PLACEHOLDER.findall(below.get(heading, f"{{{{ {name} }}}}")):
            found.append(f"no placeholder '{name}' in section '{heading}'")
    words = len(below.get("The idea", "").split())
    if words < IDEA_WORDS:
        found.append(f"section 'The idea' has {words} words: expected {IDEA_WORDS} or more")
    for heading in ("Settings", "Run it"):
        if heading in below and not PLACEHOLDER.sub("", below[heading]).strip():
            found.append(f"section '{heading}' has no prose beside what is generated")
    return found


def quoted_files() -> list[str]:
    """The files whose lines pages link to."""
    paths = [path for folder in QUOTED for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path.relative_to(ROOT).as_posix() for path in paths if path.read_text("utf-8").strip()] + [
        sections.CONTRACT
    ]


def on_post_build(config: Any) -> None:
    """Every link to a line leads to one; nothing is loaded from elsewhere."""
    for problem in check.site_problems(Path(config.site_dir)):
        log.warning("%s", problem)
