"""Settings survive the way to text and back, for every method there is."""

from dataclasses import fields
from math import inf, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.errors import UnknownNameError, UsageError
from minisparse.experiments.settings import (
    build_method,
    canonical_optimizer,
    canonical_rate,
    expects,
    fields_of,
    parse_optimizer,
    parse_rate,
    read,
    settings_of,
    write,
)
from minisparse.methods.registry import catalogue
from minisparse.nn.lr import Constant, Cosine, Step
from minisparse.nn.optim import SGD, Adam
from minisparse.sparsity.allocation import ERK, Allocation, Uniform
from minisparse.sparsity.control import Control, Reinit, Shuffle, combine
from minisparse.sparsity.pattern import NM, Pattern, Row
from minisparse.sparsity.schedule import Cubic, OneShot, Rounds, Schedule

OTHERS = {
    Schedule: (Rounds(3), OneShot(0.25), Cubic(0.1, 0.6)),
    Allocation: (Uniform(), ERK(0.5)),
    Pattern: (NM(1, 4), Row()),
    Control: (Shuffle(), Reinit(True), combine(Shuffle(), Reinit())),
    bool: (True, False),
    int: (1, 2, 7),
    float: (0.125, 0.3),
}


@pytest.mark.parametrize("name", catalogue())
def test_a_method_at_its_defaults_has_no_settings(name: str) -> None:
    assert settings_of(build_method(name, {})) == {}
    assert build_method(name, {}) == catalogue()[name].cls()


@pytest.mark.parametrize("name", catalogue())
def test_every_setting_makes_the_round_trip(name: str) -> None:
    cls = catalogue()[name].cls
    assert [s.name for s in fields_of(cls)] == [f.name for f in fields(cls)]
    for setting in fields_of(cls):
        assert setting.help
        assert read("it", setting.text, setting.type) == setting.default
        for value in OTHERS.get(setting.type, ()):
            try:
                method = cls(**{setting.name: value})
            except UsageError:
                continue  # not a value this method takes
            texts = settings_of(method)
            assert set(texts) <= {setting.name}
            assert build_method(name, texts) == method
            assert settings_of(build_method(name, texts)) == texts
            assert build_method(name, {setting.name: value}) == method


@given(st.floats(0, 1, exclude_max=True))
def test_a_sparsity_reads_back_to_the_last_bit(sparsity: float) -> None:
    text = settings_of(build_method("random", {"sparsity": sparsity})).get("sparsity", "0.9")
    assert float(text) == sparsity


def test_spelling_does_not_matter() -> None:
    for text in ("0.90", "9e-1", " .9 ", "0.9"):
        assert settings_of(build_method("random", {"sparsity": text})) == {}
    for text in ("yes", "true", "TRUE", True):
        assert settings_of(build_method("magnitude", {"normalize": text})) == {"normalize": "true"}


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"sparsty": 0.5}, UnknownNameError, "Did you mean 'sparsity'"),
        ({"sparsity": "ninety"}, UsageError, "'sparsity' of method 'magnitude' .* expected a number"),
        ({"sparsity": True}, UsageError, "expected a number"),
        ({"sparsity": nan}, UsageError, "expected a number"),
        ({"sparsity": "inf"}, UsageError, "expected a number"),
        ({"sparsity": inf}, UsageError, "expected a number"),
        ({"sparsity": 90}, UsageError, "Did you mean 0.90"),
        ({"sparsity": {"a": 1}}, UsageError, "no text form"),
        ({"norm": 1.0}, UsageError, "whole number"),
        ({"norm": "1.5"}, UsageError, "whole number"),
        ({"normalize": 1}, UsageError, "true or false"),
        ({"schedule": "cubik"}, UnknownNameError, "Did you mean 'cubic'"),
        ({"pattern": "2:x"}, UsageError, "pattern"),
    ],
)
def test_unusable_settings_say_what_was_expected(
    settings: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        build_method("magnitude", settings)


def test_unknown_method() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'magnitude'"):
        build_method("magnitud", {})


def test_unions_lists_and_none() -> None:
    assert read("it", "none", int | None) is None
    assert read("it", "7", int | None) == 7
    assert read("it", "0.5/0.75", tuple[float, ...]) == (0.5, 0.75)
    assert read("it", "0.5,0.75", tuple[float, ...]) == (0.5, 0.75)
    assert read("it", "layer", int | str) == "layer"
    assert expects(int | None) == "a whole number or none"
    assert "several" in expects(tuple[float, ...])
    assert [write(v) for v in (None, (0.5, 1), np.float32(0.5), np.int64(3))] == ["none", "0.5/1", "0.5", "3"]
    with pytest.raises(UsageError, match="whole number or none"):
        read("it", "x", int | None)
    with pytest.raises(UsageError, match="cannot be typed"):
        read("it", "x", complex)


def test_optimizers() -> None:
    found = parse_optimizer("sgd:momentum=0.5,nesterov=yes,weight_decay=1e-4")
    assert type(found) is SGD
    assert (found.momentum, found.nesterov, found.weight_decay) == (0.5, True, 1e-4)
    assert type(parse_optimizer("adam")) is Adam
    assert parse_optimizer("sgd:0.3").momentum == 0.3


def test_rates() -> None:
    assert parse_rate("cosine:lr=0.1,warmup=0.05") == Cosine(0.1, 0.05)
    assert parse_rate("constant:0.3") == Constant(0.3)
    assert parse_rate("step:milestones=0.3/0.6,gamma=0.2") == Step(gamma=0.2, milestones=(0.3, 0.6))


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("cosine", "cosine:lr=0.1"),
        ("cosine:0.10", "cosine:lr=0.1"),
        ("cosine:warmup=0.05,lr=1e-1", "cosine:lr=0.1,warmup=0.05"),
        ("step:milestones=0.50/0.75", "step:lr=0.1"),
    ],
)
def test_one_text_for_one_rate(text: str, canonical: str) -> None:
    assert canonical_rate(text) == canonical
    assert parse_rate(canonical) == parse_rate(text)


def test_one_text_for_one_optimizer() -> None:
    assert canonical_optimizer("sgd") == canonical_optimizer("sgd:nesterov=false") == "sgd:momentum=0.9"
    assert canonical_optimizer("adam:eps=1e-6,beta1=0.9") == "adam:beta1=0.9,eps=1e-06"


@pytest.mark.parametrize(
    "text",
    ["cosin", "cosine:", "cosine:lr", "cosine:lr=", "cosine:lr=0.1,lr=0.2", "cosine:lr=x", "cosine:lr=0", 3],
)
def test_unusable_rates(text: str) -> None:
    with pytest.raises(UsageError):
        parse_rate(text)
