"""The generated sections of a method's page: Markdown from the docstrings, lines and tests of the method.

Each function takes what `minisparse explain` knows of the method, and `link`, which turns a place such as
minisparse/methods/dynamic/rigl.py:35 into a reference from the page to those lines.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from functools import cache
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any

import minisparse as ms
from minisparse.cli.explain import explain_method
from minisparse.cli.listing import source_of
from minisparse.errors import MethodError
from minisparse.experiments.settings import fields_of
from minisparse.methods.registry import Entry, catalogue
from minisparse.testing import PROMISES

Link = Callable[[str, str], str]
ROOT = Path(__file__).resolve().parent.parent
NUMBERS = 76
CONTRACT = "tests/contracts/test_every_method.py"
MODELS = ("lenet-300-100", "mlp:64-100-10", "lenet-5", "vgg-small")
USED = ("minisparse.methods.", "minisparse.weights.", "minisparse.curvature.", "minisparse.sparsity.")
PLUMBING = ("minisparse.methods.base", "minisparse.methods.registry", "minisparse.sparsity.count")
SPELT = {
    "amc": "AMC", "csr": "CSR", "dct": "DCT", "ddpg": "DDPG", "erk": "ERK", "gaussian": "Gaussian",
    "ggn": "GGN",
    "grasp": "GraSP", "imp": "IMP", "kfac": "K-FAC", "lamp": "LAMP", "lasso": "LASSO", "nan": "NaN",
    "nm": "N:M", "obc": "OBC", "obd": "OBD", "obds": "OBD's", "obs": "OBS", "relu": "ReLU", "rigl": "RigL",
    "rigls": "RigL's", "snip": "SNIP", "sparsegpt": "SparseGPT", "srigl": "SRigL", "synflow": "SynFlow",
    "wanda": "Wanda",
}  # fmt: skip


@cache
def facts(name: str) -> dict[str, Any]:
    """What `minisparse explain` knows."""
    return explain_method(catalogue()[name])


def equations(entry: Entry, link: Link) -> str:
    """The docstring after its reference: sentences as prose, indented blocks as they stand."""
    text = "\n\n".join(without_reference(facts(entry.name)["text"])) or entry.idea
    return f"{prose(text)}\n\n*From the docstring of* {link(facts(entry.name)['file'], '')}."


def departures(entry: Entry, link: Link) -> str:
    """Where the code differs from the paper."""
    text = re.sub(r"^Departures?:\s*", "", facts(entry.name)["departures"])
    return prose(text[0].upper() + text[1:]) if text else "None that are known."


def paper(entry: Entry, link: Link) -> str:
    """The full reference, with its preprint or publication linked."""
    paragraphs = facts(entry.name)["text"].split("\n\n")
    text = paragraphs[0] if is_reference(paragraphs[0]) else entry.paper
    if text == "none":
        return "There is no paper: this is what all papers compare with."
    text = prose("\n".join(joined_references(text)))
    text = re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)
    return re.sub(r"\bdoi:(10\.[^\s)]+)", r"[doi:\1](https://doi.org/\1)", text)


def code(entry: Entry, link: Link) -> str:
    """Pure functions first, then the hooks, each with the place of its first line; then what they use."""
    known = facts(entry.name)
    parts = [quoted(part, link) for part in known["functions"]]
    if known["hooks"]:
        parts.append("Where they enter training:" if parts else "It consists of hooks into training alone:")
    parts += [quoted(part, link) for part in known["hooks"]]
    used = list(imported(entry))
    if used:
        parts.append("They use:")
        parts.append("\n".join(f"- `{name}`, {link(place, '')}: {idea}" for name, place, idea in used))
    return "\n\n".join(parts) or "There is none: every hook is the default of `Method`."


def settings(entry: Entry, link: Link) -> str:
    """A row for each setting; its flag is --name."""
    rows = [f"| `{s.name}` | `{s.text}` | {cell(s.help)} | {cell(s.expects)} |" for s in fields_of(entry.cls)]
    if not rows:
        return "It has none."
    return "\n".join(["| setting | default | meaning | expects |", "|---|---|---|---|", *rows])


def tests(entry: Entry, link: Link) -> str:
    """The names of the tests as sentences, and how the method keeps the promises all methods make."""
    lines = []
    for path in facts(entry.name)["tests"]:
        lines += [f"- {sentence(name)} ({link(f'{path}:{line}', 'test')})" for name, line in tested(path)]
    own = exceptions().get(entry.name, "")
    promise = (
        f"It keeps one of the [promises of every method](index.md#promises) in its own way: {prose(own)}."
    )
    held = promise if own else "It is held to all [promises of every method](index.md#promises)."
    return "\n".join(lines) + f"\n\n{held}"


def run(entry: Entry, link: Link) -> str:
    """A command that works as it stands, and the same in Python."""
    model, cls = suitable_model(entry.name), entry.cls.__name__
    shell = f"minisparse run {entry.name} --model {model}\nminisparse explain {entry.name} --trace"
    script = f"""import minisparse as ms

data = ms.data.load("digits")
network = ms.models.build("{model}", data, seed=0)
run = ms.train(network, data, ms.{cls}(), epochs=30, seed=0)
print(run.accuracy, run.sparsity, run.status)"""
    return f"```text\n{shell}\n```\n\n```py\n{script}\n```"


def idea(entry: Entry, link: Link) -> str:
    """The first line of the docstring, and the family."""
    return (
        f"**{prose(entry.idea)}**\n\nFamily: [{entry.family}](index.md#{entry.family}). Name: `{entry.name}`."
    )


def table(entries: list[Entry]) -> str:
    """The methods of one family."""
    rows = [f"| [{e.name}]({e.name}.md) | {cell(e.idea)} | {cell(e.paper)} |" for e in entries]
    return "\n".join(["| method | idea | paper |", "|---|---|---|", *rows])


def families() -> dict[str, list[Entry]]:
    """The catalogue by family, in alphabetical order."""
    found: dict[str, list[Entry]] = {}
    for entry in catalogue().values():
        found.setdefault(entry.family, []).append(entry)
    return dict(sorted(found.items()))


def promises(link: Link) -> str:
    """What `minisparse.testing` holds every method to."""
    checks = [(name, p, source_of(name, p.check)["place"]) for name, p in PROMISES.items()]
    return "\n".join(f"- **{name}**: {prose(p.text)} ({link(place, 'check')})" for name, p, place in checks)


def quoted(part: dict[str, str], link: Link) -> str:
    """A function under its name, the equations it says it is, and its place."""
    numbers = re.findall(r"[Ee]quations? ((?:\(\d+\)(?:, | and | or | to )?)+)", part["source"])
    what = f", equation {numbers[0].rstrip(' ,')}" if numbers else ""
    return f"`{part['name']}`{what}: {link(part['place'], '')}\n\n```py\n{part['source']}\n```"


def imported(entry: Entry) -> list[tuple[str, str, str]]:
    """(name, place, first line of docstring) of functions and classes that the module takes from others."""
    module, found = import_module(entry.cls.__module__), []
    for name, value in vars(module).items():
        home = getattr(value, "__module__", None) or ""
        elsewhere = home.startswith(USED) and home != module.__name__ and home not in PLUMBING
        concrete = inspect.isclass(value) and not inspect.isabstract(value)
        if elsewhere and (inspect.isfunction(value) or concrete):
            line = (inspect.getdoc(value) or "").partition("\n")[0]
            found.append((name, source_of(name, value)["place"], prose(line)))
    return sorted(found)


def tested(path: str) -> list[tuple[str, int]]:
    """Names and lines of the test functions of a file."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return [(node.name, node.lineno) for node in ast.walk(tree) if is_test(node)]  # type: ignore[attr-defined]


def is_test(node: ast.AST) -> bool:
    """A function that pytest collects."""
    return isinstance(node, ast.FunctionDef) and node.name.startswith("test_")


def sentence(name: str) -> str:
    """test_the_share_falls_along_a_cosine -> The share falls along a cosine."""
    words = [SPELT.get(word, word) for word in name.removeprefix("test_").split("_")]
    text = " ".join(words)
    return f"{text[0].upper()}{text[1:]}."


@cache
def exceptions() -> dict[str, str]:
    """Why a method keeps a promise in its own way: the reasons given in the contract's CASES."""
    tree = ast.parse((ROOT / CONTRACT).read_text(encoding="utf-8"))
    named: dict[str, ast.expr] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            named[node.targets[0].id] = node.value
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            named[node.target.id] = node.value
    cases = named["CASES"]
    assert isinstance(cases, ast.Dict)
    pairs = zip(cases.keys, cases.values, strict=True)
    return {ast.literal_eval(key): reason_of(value, named) for key, value in pairs if key is not None}


def reason_of(value: ast.expr, named: dict[str, ast.expr]) -> str:
    """The `reason` of Case(...), of a name of one, or of replace(name, ...)."""
    if isinstance(value, ast.Name):
        return reason_of(named[value.id], named)
    assert isinstance(value, ast.Call)
    for keyword in value.keywords:
        if keyword.arg == "reason":
            return str(ast.literal_eval(keyword.value))
    return reason_of(value.args[0], named) if value.args and isinstance(value.args[0], ast.Name) else ""


@cache
def suitable_model(name: str) -> str:
    """The first model that has what the method needs."""
    method = catalogue()[name].cls()
    for model in MODELS:
        try:
            method.check(ms.models.build(model, ms.data.load("digits"), seed=0))
        except MethodError:
            continue
        return model
    raise MethodError(f"method '{name}' suits none of the models: got {', '.join(MODELS)}, expected one.")


def is_reference(paragraph: str) -> bool:
    """A paragraph with a year or an identifier of a publication."""
    return bool(re.search(r"arXiv:|doi:|\b(19|20)\d\d\b", paragraph)) and not paragraph.startswith("    ")


def without_reference(text: str) -> list[str]:
    """The paragraphs after the reference."""
    paragraphs = text.split("\n\n")
    return paragraphs[1:] if is_reference(paragraphs[0]) else paragraphs


def joined_references(text: str) -> list[str]:
    """One list item per reference: a line that starts with an initial starts one."""
    found: list[str] = []
    for line in text.splitlines():
        starts = re.match(r"[A-Z]\. ?(?:[A-Z-]+\. ?)*[A-Z]", line)
        finished = not found or re.search(r"(\d{4}\.?|[\d)]\.?|\))$", found[-1])
        if starts and finished:
            found.append(f"- {line}")
        else:
            found[-1:] = [f"{found[-1]} {line.strip()}" if found else f"- {line}"]
    return found


def prose(text: str) -> str:
    """Docstring text as Markdown: what is not in backticks or indented means itself."""
    return "\n\n".join(mixed(part) for part in text.split("\n\n"))


def mixed(paragraph: str) -> str:
    """A paragraph whose indented lines are blocks of their own."""
    found: list[str] = []
    for line in paragraph.splitlines():
        block = line.startswith("    ")
        if found and block != found[-1].startswith("    "):
            found.append("")
        found.append(nearer(line) if block else literal(line))
    return "\n".join(found)


def nearer(line: str) -> str:
    """A line of a block, the number of its equation moved to the left as far as column NUMBERS."""
    found = re.fullmatch(r"(.*?) +(\(\d+\w?\))", line)
    return f"{found[1]:{NUMBERS}} {found[2]}" if found else line


def literal(line: str) -> str:
    """Special characters outside backticks escaped."""
    pieces = line.split("`")
    pieces[::2] = [re.sub(r"([*_\[\]#\\])", r"\\\1", escape(piece, quote=False)) for piece in pieces[::2]]
    return re.sub(r" {3,}(\(\d+\))$", r"  \1", "`".join(pieces))


def cell(text: str) -> str:
    """Text of a table cell."""
    return literal(text).replace("|", "\\|")
