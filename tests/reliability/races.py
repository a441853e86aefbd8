"""What a parallel loop may do, read off the source: its threads write to places of their own.

Within `for i in prange(...)`
  - a number is stored to out[i, ...], or to an array made or copied within the loop;
  - a kernel that is called gets an argument that depends on i: its share of the rows, its part of an array;
  - no name from outside is assigned or added to, which would be a sum over threads.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

FRESH = {"copy", "empty", "zeros", "ones", "full", "empty_like", "zeros_like", "array"}


def loops(tree: ast.AST) -> Iterator[ast.For]:
    """Every loop over prange."""
    for node in ast.walk(tree):
        if isinstance(node, ast.For) and isinstance(node.iter, ast.Call):
            called = node.iter.func
            if "prange" in (getattr(called, "id", ""), getattr(called, "attr", "")):
                yield node


def names(node: ast.AST) -> set[str]:
    """All names in an expression."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def root(node: ast.expr) -> str:
    """The array that a subscript, an attribute or a call on it belongs to."""
    while isinstance(node, ast.Subscript | ast.Attribute | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def targets(node: ast.stmt) -> list[ast.expr]:
    """What a statement assigns to, tuples taken apart."""
    found: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        found = list(node.targets)
    elif isinstance(node, ast.AugAssign | ast.For):
        found = [node.target]
    return [e for t in found for e in (t.elts if isinstance(t, ast.Tuple) else [t])]


def is_fresh(value: ast.expr | None) -> bool:
    """Whether an expression is a new array: x.copy(), np.empty(...)."""
    return isinstance(value, ast.Call) and getattr(value.func, "attr", "") in FRESH


def breaches(tree: ast.AST) -> list[str]:
    """'line: what is wrong' for every loop over prange in the source."""
    return [text for loop in loops(tree) for text in in_loop(loop)]


def in_loop(loop: ast.For) -> Iterator[str]:
    """The breaches of one loop."""
    if not isinstance(loop.target, ast.Name):
        yield f"{loop.lineno}: the loop's variable is not a name"
        return
    i = loop.target.id
    inside = [node for part in loop.body for node in ast.walk(part)]
    statements = [node for node in inside if isinstance(node, ast.stmt)]
    own: set[str] = set()  # names first assigned within the loop
    own_arrays: set[str] = set()
    depends = {i}
    for node in sorted(statements, key=lambda n: (n.lineno, n.col_offset)):
        value = getattr(node, "value", None) or getattr(node, "iter", None)
        for target in targets(node):
            if isinstance(target, ast.Name):
                itself = isinstance(node, ast.AugAssign) or (value is not None and target.id in names(value))
                if itself and target.id not in own:
                    yield f"{node.lineno}: adds to {target.id}, which all threads share"
                own.add(target.id)
                if is_fresh(value):
                    own_arrays.add(target.id)
                if value is not None and names(value) & depends:
                    depends.add(target.id)
            elif isinstance(target, ast.Subscript):
                first = target.slice.elts[0] if isinstance(target.slice, ast.Tuple) else target.slice
                mine = isinstance(first, ast.Name) and first.id == i and isinstance(target.value, ast.Name)
                if not mine and root(target.value) not in own_arrays:
                    yield f"{node.lineno}: stores to {ast.unparse(target)}, not to a place of {i}"
            else:
                yield f"{node.lineno}: assigns to {ast.unparse(target)}"
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            arguments = [*node.value.args, *(k.value for k in node.value.keywords)]
            known = {name for a in arguments for name in names(a)}
            if not known & (depends | own_arrays):
                yield f"{node.lineno}: calls {ast.unparse(node.value.func)} with nothing that depends on {i}"
