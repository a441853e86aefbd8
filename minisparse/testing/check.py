"""check_method: all that the methods of the catalogue promise, asked of one method."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace

from minisparse.errors import MethodError, UsageError, unknown_name
from minisparse.methods.base import Method
from minisparse.testing.case import Case
from minisparse.testing.problems import NETWORKS
from minisparse.testing.promises import PROMISES, Trial


@dataclass(frozen=True)
class Report:
    """What was checked: number of trials by promise; what the case excuses, and why."""

    method: Method
    networks: tuple[str, ...]
    checked: dict[str, int]
    excused: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        given = {f.name: getattr(self.method, f.name) for f in fields(self.method)}
        changed = [f for f in fields(self.method) if given[f.name] != f.default]
        settings = ", ".join(f"{f.name}={given[f.name]!r}" for f in changed)
        lines = [f"{type(self.method).__name__}({settings}) on {', '.join(self.networks)}"]
        for name, trials in self.checked.items():
            lines.append(
                f"  {name:<11} kept in {trials} {'trial' if trials == 1 else 'trials'}: {PROMISES[name].text}"
            )
        lines += [f"  excused     {text}: {self.reason}" for text in self.excused]
        return "\n".join(lines)


def suits(method: Method, kind: str) -> bool:
    """Whether the method accepts the network of this name."""
    try:
        method.check(NETWORKS[kind]())
    except MethodError:
        return False
    return True


def trials(name: str, method: Method, case: Case) -> Iterator[Trial]:
    """The trials of one promise; none if the case excuses it."""
    promise = PROMISES[name]
    if not promise.excused(case):
        kinds = [kind for kind in NETWORKS if suits(method, kind)] if promise.on_networks else [""]
        yield from (Trial(method, case, kind, variant) for kind in kinds for variant in promise.variants)


def keep(name: str, trial: Trial) -> None:
    """Check one promise in one trial.

    Raises AssertionError in one line that names method, promise and trial. An error that the method raises
    comes as it is, with such a line as its note.
    """
    where = ", ".join(part for part in (trial.kind, trial.variant) if part)
    what = f"method {type(trial.method).__name__}, promise '{name}'" + (f" ({where})" if where else "")
    try:
        PROMISES[name].check(trial)
    except AssertionError as broken:
        raise AssertionError(f"{what}: {broken}") from None
    except Exception as error:
        error.add_note(f"raised while checking {what}")
        raise


def check_method(
    method: Method, promises: Iterable[str] | None = None, exceptions: Case | None = None
) -> Report:
    """Check what every method promises, on a perceptron and on a small residual network.

    promises    names of `PROMISES`; all by default
    exceptions  settings for trainings of twelve steps, and promises kept in another way, with the reason

    Raises AssertionError at the first broken promise (see `keep`), MethodError if the method accepts neither
    network, UsageError or UnknownNameError for arguments that cannot be used.
    """
    case = Case() if exceptions is None else exceptions
    names = list(PROMISES) if promises is None else list(promises)
    method = _usable(method, names, case)
    networks = tuple(kind for kind in NETWORKS if suits(method, kind))
    if not networks:
        raise MethodError(
            f"method {type(method).__name__} accepts no network: got refusals of {', '.join(NETWORKS)}, "
            "expected one that suits it."
        )
    checked: dict[str, int] = {}
    for name in names:
        made = list(trials(name, method, case))
        for trial in made:
            keep(name, trial)
        if made:
            checked[name] = len(made)
    excuses = {
        "the kept count may be another": not case.counts,
        "absent entries may have values": not case.zeros,
        "no settings make it dense training": case.nothing is None,
    }
    return Report(
        method, networks, checked, tuple(text for text, made in excuses.items() if made), case.reason
    )


def _usable(method: Method, promises: list[str], case: Case) -> Method:
    """The method at the settings of the case. Raises what `check_method` says."""
    if not isinstance(method, Method):
        raise UsageError(
            f"check_method: got {method!r}, expected a method with settings, such as Magnitude(sparsity=0.8)."
        )
    for name in promises:
        if name not in PROMISES:
            raise unknown_name("promise", name, PROMISES)
    if not (case.usual or case.reason):
        raise UsageError(f"exceptions of {type(method).__name__}: got no reason, expected one.")
    known = {f.name for f in fields(method)}
    lacking = sorted({*case.settings, *(case.nothing or {})} - known)
    if lacking:
        raise UsageError(
            f"exceptions of {type(method).__name__}: got setting '{lacking[0]}', expected one it has. "
            "Say by Case(nothing=...) which settings make it dense training."
        )
    return replace(method, **case.settings)
