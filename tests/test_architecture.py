"""The design's rules, read off the source: who imports whom, what is never called, how long things are."""

import ast
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

import minisparse
from minisparse.methods.registry import catalogue

ROOT = Path(minisparse.__file__).parent
TESTS = Path(__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# Each group may import from groups to its left; a part may always import itself.
ORDER = (
    ("errors", "rng"),
    ("data", "kernels"),
    ("nn",),
    ("weights",),
    ("curvature",),
    ("sparsity",),
    ("training.state",),
    ("methods",),
    ("training",),
    ("exchange",),
    ("experiments",),
    ("testing",),
    ("cli", "sklearn"),
)
# What stands to the left of these is more than they may use.
ONLY = {"errors": (), "rng": (), "data": ("errors", "rng"), "kernels": ()}
PARTS = {part: rank for rank, group in enumerate(ORDER) for part in group}
# The package itself loads names on demand; `python -m minisparse` calls the command line.
ENTRIES = {"__init__.py", "__main__.py"}
# Modules found by name when a command asks for them, so that the others need not be loaded.
DISPATCHERS = {"__init__.py", "methods/registry.py"} | {
    f"cli/{name}.py" for name in ("main", "bench", "explain", "jobs")
}
GENERATORS = {"Generator", "BitGenerator", "SeedSequence", "PCG64"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "torch", "jax", "autograd"}
LONGEST_FUNCTION, LONGEST_FILE = 70, 400

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


def label(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def dotted(node: ast.AST) -> str:
    """'np.random.rand' for such an expression, '' for anything but names and attributes."""
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return node.id if isinstance(node, ast.Name) else ""


def imports(tree: ast.AST, package: str) -> Iterator[tuple[str, int]]:
    """(module, line) of every import; `from a import b` gives a.b too, for b may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            yield base, node.lineno
            for alias in node.names:
                yield f"{base}.{alias.name}", node.lineno


def part_of(module: str) -> str | None:
    """The longest part that a module of ours belongs to; None for the package itself and for others."""
    if not module.startswith("minisparse."):
        return None
    inner = module.removeprefix("minisparse.")
    fitting = [part for part in PARTS if inner == part or inner.startswith(f"{part}.")]
    return max(fitting, key=len, default=None)


def module_of(path: Path) -> str:
    return "minisparse." + label(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def may_import(importer: str, imported: str) -> bool:
    if importer == imported:
        return True
    if importer in ONLY:
        return imported in ONLY[importer]
    return PARTS[imported] < PARTS[importer]


def uses_of_package(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Names reached through `import minisparse`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and dotted(node).startswith("minisparse."):
            yield dotted(node), node.lineno


def wrong_imports(path: Path, tree: ast.AST) -> list[str]:
    module = module_of(path)
    importer = part_of(module)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for name, line in [*imports(tree, package), *uses_of_package(tree)]:
        imported = part_of(name)
        if importer and imported and not may_import(importer, imported):
            found.add(f"{label(path)}:{line} {importer} imports {imported}")
        lazy = name.startswith("minisparse.") and not imported and name != "minisparse.__version__"
        if lazy and importer != "cli":
            found.add(f"{label(path)}:{line} {importer} takes {name} from the package")
    return sorted(found)


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node


def inner_imports(path: Path, tree: ast.AST) -> list[str]:
    found = []
    for function in (n for n in ast.walk(tree) if isinstance(n, FunctionNode)):
        for node in ast.walk(function):
            if isinstance(node, ast.Import | ast.ImportFrom):
                found.append(f"{label(path)}:{node.lineno} imports inside {function.name}")
    if label(path) not in DISPATCHERS:
        for name, call in calls(tree):
            if name.rpartition(".")[2] in ("import_module", "__import__"):
                found.append(f"{label(path)}:{call.lineno} calls {name}")
    return found


def global_randomness(path: Path, tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        name = dotted(node) if isinstance(node, ast.Attribute) else ""
        for prefix in ("np.random.", "numpy.random."):
            if name.startswith(prefix) and name.removeprefix(prefix).split(".")[0] not in GENERATORS:
                found.append(f"{label(path)}:{node.lineno} uses {name}")
    for name, line in imports(tree, ""):
        head, _, last = name.rpartition(".")
        if name == "random" or head == "random" or (head == "numpy.random" and last not in GENERATORS):
            found.append(f"{label(path)}:{line} imports {name}")
    return found


def is_true(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def unsafe(path: Path, tree: ast.AST) -> list[str]:
    found = []
    for name, line in imports(tree, ""):
        if name.split(".")[0] in FORBIDDEN_MODULES:
            found.append(f"{label(path)}:{line} imports {name}")
    for name, call in calls(tree):
        if name in ("eval", "exec", "compile"):
            found.append(f"{label(path)}:{call.lineno} calls {name}")
        for keyword in call.keywords:
            if keyword.arg in ("fastmath", "allow_pickle") and is_true(keyword.value):
                found.append(f"{label(path)}:{call.lineno} passes {keyword.arg}=True")
    return found


def prints(path: Path, tree: ast.AST) -> list[str]:
    if label(path).startswith("cli/"):
        return []
    return [f"{label(path)}:{call.lineno} prints" for name, call in calls(tree) if name == "print"]


def too_long(path: Path, tree: ast.AST) -> list[str]:
    found, lines = [], len(path.read_text(encoding="utf-8").splitlines())
    if lines > LONGEST_FILE:
        found.append(f"{label(path)} has {lines} lines")
    for node in ast.walk(tree):
        if isinstance(node, FunctionNode):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > LONGEST_FUNCTION:
                found.append(f"{label(path)}:{node.lineno} {node.name} has {length} lines")
    return found


RULES: dict[str, Callable[[Path, ast.AST], list[str]]] = {
    "imports point one way": wrong_imports,
    "imports stand at the top": inner_imports,
    "randomness is an argument": global_randomness,
    "no fast math, no pickle, no evaluation of text": unsafe,
    "only the command line prints": prints,
    "functions and files are short": too_long,
}


@pytest.mark.parametrize("rule", RULES)
def test_the_package_keeps_the_rule(rule):
    skipped = ENTRIES if rule == "imports point one way" else set()
    offenders = [o for path in FILES if label(path) not in skipped for o in RULES[rule](path, tree_of(path))]
    assert not offenders, "\n".join([rule, *offenders])


def test_every_file_has_a_place_in_the_order():
    lost = [label(p) for p in FILES if label(p) not in ENTRIES and part_of(module_of(p)) is None]
    assert not lost, f"give these a place in ORDER: {lost}"


BREACHES = {
    "imports point one way": [
        ("nn/x.py", "from minisparse.sparsity import select"),
        ("nn/x.py", "import minisparse.methods.base"),
        ("methods/x.py", "from minisparse.training.loop import fit"),
        ("training/state.py", "from minisparse.methods.base import Method"),
        ("data/x.py", "from minisparse.kernels.jit import kernel"),
        ("kernels/x.py", "from minisparse.errors import UsageError"),
        ("nn/sub/x.py", "from ...sparsity import select"),
        ("nn/x.py", "from minisparse import methods"),
        ("nn/x.py", "import minisparse\nminisparse.methods.base"),
        ("nn/x.py", "from minisparse import RigL"),
        ("nn/x.py", "def f():\n    from minisparse.sparsity import select"),
    ],
    "imports stand at the top": [
        ("nn/x.py", "def f():\n    import numpy"),
        ("nn/x.py", "class A:\n    def f(self):\n        from math import pi"),
        ("nn/x.py", "import importlib\nm = importlib.import_module('math')"),
    ],
    "randomness is an argument": [
        ("nn/x.py", "x = np.random.rand(3)"),
        ("nn/x.py", "np.random.seed(0)"),
        ("nn/x.py", "rng = np.random.default_rng()"),
        ("nn/x.py", "from numpy.random import rand"),
        ("nn/x.py", "import random"),
    ],
    "no fast math, no pickle, no evaluation of text": [
        ("nn/x.py", "f = njit(fastmath=True)(g)"),
        ("nn/x.py", "import pickle"),
        ("nn/x.py", "eval('1')"),
        ("nn/x.py", "np.load(p, allow_pickle=True)"),
        ("nn/x.py", "from torch import nn"),
    ],
    "only the command line prints": [("nn/x.py", "print(1)")],
}
KEPT = [
    (
        "methods/x.py",
        "from minisparse.training.state import TrainState\nfrom minisparse.methods.base import Method",
    ),
    ("nn/x.py", "from numpy.random import Generator, PCG64\nfrom minisparse.kernels.jit import kernel"),
    ("nn/x.py", "def f(rng: np.random.Generator):\n    return rng.random(3)"),
    ("nn/x.py", "f = njit(fastmath={'reassoc'})(g)\nnp.load(p, allow_pickle=False)\nre.compile('a')"),
    ("cli/x.py", "import minisparse\nprint(minisparse.RigL)"),
    ("experiments/x.py", "import minisparse\nv = minisparse.__version__"),
    ("methods/registry.py", "def f():\n    return import_module('math')"),
]


@pytest.mark.parametrize(
    ("rule", "file", "source"), [(r, f, s) for r, all_ in BREACHES.items() for f, s in all_]
)
def test_a_breach_is_seen(rule, file, source):
    assert RULES[rule](ROOT / file, ast.parse(source))


@pytest.mark.parametrize(("file", "source"), KEPT)
def test_what_is_allowed_passes(file, source):
    for name, rule in RULES.items():
        if rule is not too_long:
            assert not rule(ROOT / file, ast.parse(source)), name


def test_every_method_has_a_test_file():
    expected = {name: f"methods/test_{name.replace('-', '_')}.py" for name in catalogue()}
    absent = {name: file for name, file in expected.items() if not (TESTS / file).is_file()}
    assert not absent, f"methods without their test file: {absent}"
