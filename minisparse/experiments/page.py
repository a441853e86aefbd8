"""Building blocks of a self-contained HTML page: no script, no address outside the file, all text escaped.

A page is a tree of elements; the standard library writes it, and escapes every text on the way. Pictures
are embedded in two versions, and the reader's preference for light or dark chooses.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, tostring

Part = Element | str
STYLE = Path(__file__).with_name("report.css")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def node(tag: str, *parts: Part, **attributes: str) -> Element:
    """An element with children and text in order. `class_` stands for the attribute class."""
    element = Element(tag, {name.rstrip("_"): value for name, value in attributes.items()})
    for part in parts:
        if isinstance(part, Element):
            element.append(part)
        elif len(element):
            element[-1].tail = (element[-1].tail or "") + clean(part)
        else:
            element.text = (element.text or "") + clean(part)
    return element


def clean(text: str) -> str:
    """Text without the control characters that have no place in HTML, a number kept with its % sign."""
    plain = "".join(c for c in text if c >= " " or c in "\n\t").replace("\x7f", "")
    return plain.replace(" %", "\u00a0%")


def document(title: str, *body: Part) -> bytes:
    """A whole page as a file's content. The policy in it forbids scripts and outside addresses."""
    html = node("html", lang="en")
    head = SubElement(html, "head")
    head.append(node("meta", charset="utf-8"))
    head.append(node("meta", name="viewport", content="width=device-width, initial-scale=1"))
    head.append(Element("meta", {"http-equiv": "Content-Security-Policy", "content": POLICY}))
    head.append(node("meta", name="color-scheme", content="light dark"))
    head.append(node("title", title))
    style = SubElement(head, "style")
    style.text = STYLE.read_text(encoding="utf-8")
    html.append(node("body", *body))
    return b"<!doctype html>\n" + tostring(html, encoding="unicode", method="html").encode() + b"\n"


def section(name: str, heading: str, *parts: Part) -> Element:
    """A section with an anchor and a heading."""
    return node("section", node("h2", heading), *parts, id=name)


def picture(light: bytes, dark: bytes, text: str, caption: str) -> Element:
    """A PNG in two versions; `text` describes it to those who do not see it."""
    source = Element("source", {"srcset": _data(dark), "media": "(prefers-color-scheme: dark)"})
    image = node("img", src=_data(light), alt=text)
    return node("figure", node("picture", source, image), node("figcaption", caption))


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{b64encode(png).decode()}"


def table(head: Sequence[Sequence[Part]], bodies: Iterable[Sequence[Element]]) -> Element:
    """A table in a frame that scrolls sideways on narrow screens. head: rows of cells; bodies: groups."""
    grid = node("table")
    top = SubElement(grid, "thead")
    for row in head:
        top.append(node("tr", *[cell if isinstance(cell, Element) else node("th", cell) for cell in row]))
    for body in bodies:
        grid.append(node("tbody", *body))
    return node("div", grid, class_="scroll", tabindex="0")


def row(cells: Iterable[Part], **attributes: str) -> Element:
    """A table row; plain texts become cells, and those that start like numbers stand to the right."""
    return node("tr", *[cell if isinstance(cell, Element) else _cell(cell) for cell in cells], **attributes)


def _cell(text: str) -> Element:
    number = text[:1].isdigit() or text[:2].lstrip("\u2212-+").isdigit() or text == "-"
    return node("td", text, class_="number") if number else node("td", text)


def facts(pairs: Iterable[tuple[str, Part]]) -> Element:
    """A list of terms and what they mean."""
    terms = node("dl")
    for term, meaning in pairs:
        terms.append(node("dt", term))
        terms.append(node("dd", meaning))
    return terms


def bullets(parts: Iterable[Part]) -> Element:
    """A list with a bullet for each part."""
    return node("ul", *[node("li", part) for part in parts])


def folded(summary: str, *parts: Part) -> Element:
    """A part that is closed until the reader opens it."""
    return node("details", node("summary", summary), *parts)
