"""Text to value and back, and one clear line for everything that is not a value."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.errors import UnknownNameError, UsageError
from minisparse.sparsity import (
    ERK,
    NM,
    Block,
    Column,
    Cubic,
    EqualPerLayer,
    ErdosRenyi,
    Explicit,
    Exponential,
    FirstDense,
    FirstLast,
    Global,
    InChannel,
    Linear,
    OneShot,
    Rounds,
    Row,
    SlowLast,
    Steady,
    Uniform,
    Unstructured,
    parse_allocation,
    parse_pattern,
    parse_schedule,
    to_text,
)
from minisparse.sparsity.parse import ALLOCATIONS, PATTERNS, SCHEDULES

SHARE = st.floats(0, 1)
SPARSITY = st.floats(0, 1, exclude_max=True)
WINDOW = st.tuples(SHARE, SHARE).map(sorted)
COUNT = st.integers(1, 10**6)
SCHEDULE = st.one_of(
    st.builds(OneShot, SHARE),
    st.builds(Exponential, COUNT, SHARE),
    st.builds(Rounds, COUNT),
    st.builds(lambda n, w: Rounds(n, *w), COUNT, WINDOW),
    st.builds(lambda w, e, i: Linear(*w, e, i), WINDOW, st.none() | COUNT, SPARSITY),
    st.builds(lambda w, e, i: Cubic(*w, e, i), WINDOW, st.none() | COUNT, SPARSITY),
    st.builds(lambda w, e: Steady(e, *w), WINDOW, st.none() | COUNT),
)
NAMES = st.text("abcxyz0189._-/", min_size=1, max_size=8)
ALLOCATION = st.one_of(
    st.sampled_from([Global(), Uniform(), ErdosRenyi(), EqualPerLayer()]),
    st.builds(ERK, st.floats(0, 5)),
    st.builds(FirstDense, st.booleans()),
    st.builds(SlowLast, st.floats(0.01, 0.99), st.floats(0.01, 0.99)),
    st.builds(FirstLast, st.sampled_from(["conv", "always", "never"]), SPARSITY),
    st.builds(Explicit, st.dictionaries(NAMES, SPARSITY, max_size=4)),
)
PATTERN = st.one_of(
    st.sampled_from([Unstructured(), Row(), Column(), InChannel()]),
    st.builds(Block, COUNT, COUNT),
    st.builds(lambda a, b, r: NM(min(a, b), max(a, b), r), COUNT, COUNT, st.sampled_from(["error", "dense"])),
)


@given(SCHEDULE, st.booleans())
def test_schedules_survive_text(value, full: bool) -> None:
    assert parse_schedule(to_text(value, full)) == value
    assert to_text(parse_schedule(to_text(value, full)), full) == to_text(value, full)


@given(ALLOCATION, st.booleans())
def test_allocations_survive_text(value, full: bool) -> None:
    assert parse_allocation(to_text(value, full)) == value
    assert to_text(parse_allocation(to_text(value, full)), full) == to_text(value, full)


@given(PATTERN, st.booleans())
def test_patterns_survive_text(value, full: bool) -> None:
    assert parse_pattern(to_text(value, full)) == value
    assert to_text(parse_pattern(to_text(value, full)), full) == to_text(value, full)


@pytest.mark.parametrize(
    ("parse", "text", "value", "canonical"),
    [
        (parse_schedule, "cubic", Cubic(), "cubic"),
        (parse_schedule, "cubic:begin=0.1,end=0.8", Cubic(0.1, 0.8), "cubic:begin=0.1,end=0.8"),
        (parse_schedule, " cubic : every = 5 , begin=0 ", Cubic(0, every=5), "cubic:begin=0.0,every=5"),
        (parse_schedule, "cubic:every=none", Cubic(), "cubic"),
        (parse_schedule, "rounds:5", Rounds(5), "rounds"),
        (parse_schedule, "rounds:rounds=7", Rounds(7), "rounds:rounds=7"),
        (parse_schedule, "one-shot:0.5", OneShot(0.5), "one-shot:at=0.5"),
        (parse_schedule, "exponential:60", Exponential(60), "exponential:rounds=60"),
        (parse_schedule, "steady:5", Steady(5), "steady:every=5"),
        (parse_allocation, "global", Global(), "global"),
        (parse_allocation, "erk:0.5", ERK(0.5), "erk:power=0.5"),
        (parse_allocation, "first-dense:true", FirstDense(True), "first-dense:compensate=true"),
        (parse_allocation, "first-last:last=0.9", FirstLast(last=0.9), "first-last:last=0.9"),
        (
            parse_allocation,
            "explicit:fc2=0.5,fc1=0.9",
            Explicit({"fc1": 0.9, "fc2": 0.5}),
            "explicit:fc1=0.9,fc2=0.5",
        ),
        (parse_allocation, "explicit", Explicit(), "explicit"),
        (parse_pattern, "2:4", NM(2, 4), "2:4"),
        (parse_pattern, "4:8", NM(4, 8), "4:8"),
        (parse_pattern, "nm", NM(2, 4), "2:4"),
        (parse_pattern, "nm:keep=1,of=4", NM(1, 4), "1:4"),
        (parse_pattern, "nm:1", NM(1, 4), "1:4"),
        (parse_pattern, "2:4:remainder=dense", NM(2, 4, "dense"), "2:4:remainder=dense"),
        (parse_pattern, "block:rows=8,cols=2", Block(8, 2), "block:rows=8,cols=2"),
        (parse_pattern, "block:8", Block(8), "block:rows=8"),
        (parse_pattern, "in-channel", InChannel(), "in-channel"),
    ],
)
def test_examples(parse, text: str, value: object, canonical: str) -> None:
    assert parse(text) == value
    assert to_text(value) == canonical


def test_full_text_does_not_depend_on_the_defaults() -> None:
    assert to_text(Cubic(), full=True) == "cubic:begin=0.2,end=0.7,every=none,initial=0.0"
    assert to_text(NM(), full=True) == "nm:keep=2,of=4,remainder=error"
    assert to_text(FirstDense(), full=True) == "first-dense:compensate=false"
    assert to_text(Global(), full=True) == "global"


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (parse_schedule, "cubik", "unknown schedule 'cubik'"),
        (parse_schedule, "", "unknown schedule ''"),
        (parse_schedule, "2:4", "unknown schedule '2'"),
        (parse_allocation, "ERK", "unknown allocation 'ERK'"),
        (parse_pattern, "2:4:6", "got '6', expected key=value"),
        (parse_pattern, "2:4:keep=3", "each key once"),
        (parse_pattern, "2:4:", "expected key=value"),
        (parse_pattern, "5:4", "got 5:4, expected N <= M"),
        (parse_pattern, "0:4", "keep is not usable: got 0"),
        (parse_pattern, "-2:4", "unknown pattern '-2'"),
        (parse_schedule, "cubic:start=0.1", "unknown setting of schedule 'cubic' 'start'"),
        (parse_schedule, "cubic:begin=x", "'begin' of schedule 'cubic' cannot be read: got 'x'"),
        (parse_schedule, "cubic:every=1.5", "expected a whole number"),
        (parse_schedule, "cubic:begin=none", "cannot be read: got 'none'"),
        (parse_schedule, "cubic:begin=nan", "begin is not a share: got nan"),
        (parse_schedule, "cubic:begin=0.9", "schedule window is empty"),
        (parse_schedule, "cubic:", "expected key=value"),
        (parse_schedule, "cubic:0.1,0.2", "got '0.1', expected key=value"),
        (parse_schedule, "cubic:begin=", "expected key=value"),
        (parse_schedule, "cubic:=1", "expected key=value"),
        (parse_schedule, "cubic:begin=0.1,begin=0.2", "each key once"),
        (parse_schedule, "cubic:begin=0.1,", "expected key=value"),
        (parse_allocation, "global:1", "expected key=value"),
        (parse_allocation, "global:a=1", "unknown setting of allocation 'global' 'a'"),
        (parse_allocation, "explicit:0.5", "expected key=value"),
        (parse_allocation, "explicit:fc1=high", "expected a number"),
        (parse_allocation, "explicit:fc1=90", "Did you mean 0.90?"),
        (parse_allocation, "first-dense:1", "expected true or false"),
        (parse_schedule, "rounds:0", "rounds is not usable: got 0"),
    ],
)
def test_errors_are_one_clear_line(parse, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_a_near_miss_is_suggested() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'cubic'"):
        parse_schedule("cubik")
    with pytest.raises(UnknownNameError, match="Did you mean 'begin'"):
        parse_schedule("cubic:begn=0.1")


@given(st.sampled_from([parse_schedule, parse_allocation, parse_pattern]), st.text(max_size=30))
def test_any_text_is_a_value_or_a_usage_error(parse, text: str) -> None:
    try:
        value = parse(text)
    except UsageError:
        return
    assert parse(to_text(value)) == value


@given(
    st.sampled_from([(parse_schedule, "cubic"), (parse_allocation, "explicit"), (parse_pattern, "2:4")]),
    st.text("abegin=0.19,:- e", max_size=20),
)
def test_any_settings_are_a_value_or_a_usage_error(axis, text: str) -> None:
    parse, head = axis
    try:
        value = parse(f"{head}:{text}")
    except UsageError:
        return
    assert parse(to_text(value)) == value


@pytest.mark.parametrize("bad", [None, 3, Cubic(), b"cubic"])
def test_only_text_is_parsed(bad) -> None:
    with pytest.raises(UsageError, match="is not text"):
        parse_schedule(bad)


def test_only_registered_values_have_text() -> None:
    with pytest.raises(UsageError, match="no text form"):
        to_text(3)  # type: ignore[type-var]


@pytest.mark.parametrize("registry", [SCHEDULES, ALLOCATIONS, PATTERNS])
def test_every_entry_has_a_one_line_docstring_and_usable_defaults(registry) -> None:
    for name, cls in registry.items():
        first_line = (cls.__doc__ or "").splitlines()[0]
        assert first_line.endswith(".")
        assert not first_line.startswith(cls.__name__ + "(")  # the dataclass's generated text
        assert cls().__hash__() == cls().__hash__()
        assert to_text(cls(), full=True).split(":")[0] == name
        assert all(entry.init for entry in fields(cls))
