"""A traced run in the terminal: a line for every step, tables for what the method changes.

Events of one kind are shown in full twice, the last of all always; others are one line each, and complete
under --json.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from textwrap import wrap
from typing import Any

import numpy as np
from rich.text import Text

from minisparse.cli.console import Screen, decimal, percent
from minisparse.cli.listing import show_sources, source_of
from minisparse.cli.matrices import Panel, beside, vector
from minisparse.experiments.events import Change, Event, Step, Trace
from minisparse.experiments.listening import Line
from minisparse.experiments.settings import write
from minisparse.nn.param import Array

WIDTH = 100  # of a line, if the terminal has that many columns
IN_FULL = 2  # events of one kind
STEPS = 12  # lines of steps in a row; of more, those in the middle are left out
FUNCTIONS = 5  # named at an event
HOOKS = {
    "setup": "before training",
    "before_forward": "before the forward pass",
    "penalty": "after the backward pass",
    "update": "in the update",
    "after_update": "after the update",
    "finish": "at the end",
}
WITHIN = ("before_forward", "penalty", "update")


def show_trace(screen: Screen, facts: dict[str, Any], trace: Trace) -> None:
    """Print a trace; facts: its method's name and idea."""
    show_setting(screen, facts, trace)
    seen: Counter[tuple[str, ...]] = Counter()
    run: list[Step] = []
    apart = True  # whether a blank line is due before what comes next
    for item in trace.history:
        if isinstance(item, Step):
            run.append(item)
            continue
        apart = show_steps(screen, run, trace, apart)
        run = []
        kind = kind_of(item)
        seen[kind] += 1
        if seen[kind] <= IN_FULL or item is trace.events[-1]:
            show_event(screen, item, trace)
            apart = True
        else:
            told = f"{when(item)}: {what(item)}{per_layer(item)}, loss {arrow(*item.loss)}"
            for line in folded(screen, told):
                screen.line(line)
    show_steps(screen, run, trace, apart)
    show_end(screen, facts, trace)


def show_setting(screen: Screen, facts: dict[str, Any], trace: Trace) -> None:
    """What is trained, with what, on what."""
    layers = ", ".join(
        f"{name} {x.weight.shape[0]}x{x.weight.shape[1]}" for name, x in trace.network.prunable().items()
    )
    method, data = trace.method, trace.data
    settings = ", ".join(f"{key} {write(value)}" for key, value in vars(method).items())
    screen.heading(f"{facts['name']}, step by step")
    screen.line(facts["idea"])
    screen.line()
    wrapped(screen, "Settings", settings or "none")
    wrapped(
        screen, "Network", f"{trace.network.name}; {layers}: {trace.size} prunable weights, seed {trace.seed}"
    )
    wrapped(
        screen, "Data",
        f"{data.name}, {data.n_train} training samples in batches of {trace.batch}; class k is light at "
        "inputs k, k + 4, ..., the rest is noise (inputs 3, 7, ... are nothing else)",
    )  # fmt: skip
    marks = Text("Matrices  (out, in): a row is what one unit reads.  ")
    for mark, word, style in (("x", "leaves", "red"), ("+", "enters", "green"), (".", "absent", "dim")):
        marks.append(f"{mark} {word}  ", style=style)
    screen.out.print(marks, soft_wrap=True)


def folded(screen: Screen, text: str, first: str = "", rest: str = "    ") -> list[str]:
    """The text in lines that fit, the first and the others behind these indents."""
    room = min(WIDTH, screen.out.width)
    return wrap(text, room, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)


def wrapped(screen: Screen, label: str, text: str) -> None:
    """A label and text in lines that fit, one below the other."""
    for line in folded(screen, text, f"{label:<10}", " " * 10):
        screen.line(line)


def show_steps(screen: Screen, steps: Sequence[Step], trace: Trace, apart: bool) -> bool:
    """A line each, but for the middle of many; returns whether a blank line is still due before the next."""
    lines = [step_line(step, trace) for step in steps]
    if len(lines) > STEPS:
        lines[3:-3] = [f"          ... {len(lines) - 6} more steps"]
    for line in [""] * (apart and bool(lines)) + lines:
        screen.line(line)
    return apart and not lines


def step_line(step: Step, trace: Trace) -> str:
    """Step, loss of its batch, learning rate, weights kept."""
    penalty = f" (penalty {step.penalty:.4f})" if step.penalty else ""
    loss = f"loss of the batch {step.loss:.4f}{penalty}"
    return f"step {step.step:>3}  {loss}   lr {step.lr:.4f}   kept {step.kept} of {trace.size}"


def when(event: Event) -> str:
    """'step 6, after the update', 'step 7 (t = 6), in the update': t counts complete steps."""
    if event.hook in WITHIN:
        return f"step {event.step + 1} (t = {event.step}), {HOOKS[event.hook]}"
    return f"step {event.step}, {HOOKS[event.hook]}"


def kind_of(event: Event) -> tuple[str, ...]:
    """Events of the same kind are told in the same words, but for their numbers."""
    return event.hook, *(key for key, text in deeds(event).items() if text)


def deeds(event: Event) -> dict[str, str]:
    """What happened, in words, by kind of change; '' for what did not."""
    left, entered, moved = (event.total(name) for name in ("left", "entered", "moved"))
    kinds = {after for _, after in event.substituted.values()}
    stay = event.hook == "update" and not event.substituted
    return {
        "kinds": verb(event.substituted, "is now", "are now") + f" {', '.join(sorted(kinds))}"
        if kinds
        else "",
        "left": f"{plural(left, 'weight leaves', 'weights leave')}" if left else "",
        "entered": f"{plural(entered, 'weight enters', 'weights enter')}" if entered else "",
        "moved": "" if stay or not moved else plural(moved, "weight gets", "weights get") + " a new value",
        "others": ""
        if event.hook == "update" or not event.others
        else verb(event.others, "changes", "change"),
        "clock": f"the learning rate goes back to step {event.clock[1]}" if event.clock else "",
        "forgets": "the optimiser starts anew" if event.forgets else "",
        "remembers": f"it remembers {names(map(repr, event.remembers))}" if event.remembers else "",
    }


def what(event: Event) -> str:
    """What happened, as one line."""
    return "; ".join(text for text in deeds(event).values() if text)


def names(words: Iterable[str], most: int = 3) -> str:
    """'a, b and 3 more'."""
    listed = list(words)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def verb(words: Collection[str], one: str, many: str) -> str:
    """'fc1 changes', 'fc1, fc2 change'."""
    return f"{names(words)} {one if len(words) == 1 else many}"


def plural(number: int, one: str, many: str) -> str:
    """'1 weight', '2 weights'."""
    return f"{number} {one if number == 1 else many}"


def arrow(before: float, after: float) -> str:
    """'0.8123 -> 0.8201'."""
    return f"{decimal(before, '.4f')} -> {decimal(after, '.4f')}"


def per_layer(event: Event) -> str:
    """' (fc1 -1 +1)' for layers whose mask changed."""
    parts = [f"{n} -{c.left.sum()} +{c.entered.sum()}" for n, c in event.layers.items() if changed(c)]
    return f" ({', '.join(parts)})" if parts else ""


def changed(change: Change) -> bool:
    """Whether the mask is another one."""
    return bool(change.left.any() or change.entered.any())


def show_event(screen: Screen, event: Event, trace: Trace) -> None:
    """Headline, counts, losses, functions, and the matrices of layers that are concerned."""
    screen.line()
    for text in folded(screen, f"{when(event)}: {what(event)}"):
        screen.heading(text)
    asked = f", asked {event.asked.kept} (sparsity {event.asked.sparsity:.4g})" if event.asked else ""
    screen.line(f"  kept  {event.kept[0]} -> {event.kept[1]} of {trace.size}{asked}")
    screen.line(f"  loss  {arrow(*event.loss)}  (all training samples)")
    own = [line for line in event.ran if line.module == type(trace.method).__module__]
    lines = [line for line in event.ran if line.equations] or [x for x in own if "." not in x.name]
    for label, line in zip(["by", *[""] * FUNCTIONS], lines[:FUNCTIONS], strict=False):
        screen.line(f"  {label:<4}  {function_line(line)}")
    for name, (before, after) in event.others.items():
        if event.hook != "update":
            screen.line(f"  {name}  {vector(before)}  ->  {vector(after)}")
    for name, score in event.scores.items():
        if score.ndim == 1:
            screen.line(f"  score of units of {name}  {vector(score)}")
    for name, shapes in event.remembers.items():
        listed = (f"{key} {' x '.join(map(str, shape)) or 'one number'}" for key, shape in shapes.items())
        for text in folded(screen, f"{name}: {', '.join(listed)}", "  memory  ", " " * 10):
            screen.line(text)
    for name, change in event.layers.items():
        show_layer(screen, name, change, event)


def function_line(line: Line) -> str:
    """'(1) drop_smallest, rules.py:20'."""
    return f"{line.equations + ' ' if line.equations else ''}{line.name}, {line.place}"


def show_layer(screen: Screen, name: str, change: Change, event: Event) -> None:
    """Matrices of one layer, if the event concerns it."""
    score = event.scores.get(name, np.empty(0))
    scored = score.shape == change.values[0].shape
    moved = bool(change.moved.any()) and event.hook != "update"
    if not (changed(change) or moved or scored or (change.rewired and change.extra)):
        return
    screen.line(f"  {name}  kept {change.kept[0]} -> {change.kept[1]}")
    own = event.hook == "update" and changed(change) and change.kinds[0] == change.kinds[1]
    marks = marks_of(change)
    stay = change.values[1 if own else 0]
    panels = [Panel("weights", np.where(change.entered, change.values[1], stay), marks)]
    if scored:
        panels.append(Panel("score", score, marks))
    if name in event.gradients and change.entered.any():
        panels.append(
            Panel("dL/dW of the last batch", event.gradients[name], np.where(marks == "+", "+", ""))
        )
    if moved:
        panels.append(Panel("weights afterwards", change.values[1], np.where(change.masks[1], "", ".")))
    for key, value in change.extra.items():
        if value.shape == change.values[1].shape and not (scored and np.array_equal(value, score)):
            panels.append(Panel(key, value, np.full(value.shape, "")))
        elif value.shape != change.values[1].shape:
            screen.line(f"  {name}.{key}  {vector(value)}")
    for line in beside(panels, min(WIDTH, screen.out.width)):
        screen.out.print(line, soft_wrap=True)


def marks_of(change: Change) -> Array:
    """(out, in) of 'x', '+', '.' and ''."""
    absent = ~change.masks[0] & ~change.masks[1]
    return np.select([change.left, change.entered, absent], ["x", "+", "."], "")


def show_end(screen: Screen, facts: dict[str, Any], trace: Trace) -> None:
    """Accuracy, counts, the matrices, and the equations with the lines that computed them."""
    screen.line()
    screen.heading("At the end")
    if not trace.events:
        screen.line("This method changes nothing but what its optimiser does: there are no events.")
    asked = ""
    if trace.asked is not None:
        share = f"sparsity {write(vars(trace.method)['sparsity'])}"
        told = f", as asked ({share})", f"; {share} of all of them would leave {trace.asked}"
        asked = told[trace.asked != trace.kept]
    screen.line(f"  accuracy  {percent(trace.accuracy)} of {trace.data.n_test} test samples")
    screen.line(f"  loss      {arrow(*trace.loss)}  (all training samples)")
    screen.line(f"  kept      {trace.kept} of {trace.size}{asked}")
    if trace.note:
        screen.line(f"  note      {trace.note}")
    panels = [
        Panel(name, layer.weight.dense(), np.where(layer.weight.mask, "", "."))
        for name, layer in trace.network.prunable().items()
    ]
    for panel in panels:
        for line in beside([panel], min(WIDTH, screen.out.width)):
            screen.out.print(line, soft_wrap=True)
    numbered = [(line, calls) for line, calls in trace.calls if line.equations]
    if numbered:
        screen.line()
        rows = [[line.equations, line.name, line.place, str(calls)] for line, calls in numbered]
        screen.table(["equation", "function", "place", "calls"], rows, title="Equations that were computed")
        show_sources(screen, [source_of(line.name, line.code) for line, _ in numbered])
    screen.line(f"\nThe equations, settings and reference: minisparse explain {facts['name']}")
