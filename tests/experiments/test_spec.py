"""Equal specs have equal keys; different ones do not."""

import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.errors import UnknownNameError, UsageError
from minisparse.experiments.settings import fields_of
from minisparse.experiments.spec import RunSpec
from minisparse.methods.registry import catalogue


def test_the_default_spec_is_short() -> None:
    assert RunSpec("dense").canonical() == '{"format":1,"method":"dense"}'
    assert len(RunSpec("dense").key) == 16
    assert int(RunSpec("dense").key, 16) > 0


def test_defaults_spelled_out_change_nothing() -> None:
    full = {f.name: getattr(RunSpec("rigl"), f.name) for f in fields(RunSpec)}
    settings = {s.name: s.default for s in fields_of(catalogue()["rigl"].cls)}
    spelled = RunSpec(
        **(full | {"settings": tuple(settings.items()), "optimizer": "sgd", "rate": "cosine:0.10"})
    )
    assert spelled == RunSpec("rigl")
    assert spelled.key == RunSpec("rigl").key


@given(st.permutations([("sparsity", "0.95"), ("every", "20"), ("alpha", "0.30"), ("until", "0.5")]))
def test_the_order_of_settings_changes_nothing(settings: list[tuple[str, str]]) -> None:
    spec = RunSpec("rigl", tuple(settings))
    assert spec.settings == (("every", "20"), ("sparsity", "0.95"), ("until", "0.5"))
    assert spec.key == RunSpec("rigl", (("until", "0.5"), ("sparsity", "0.95"), ("every", "20"))).key


CHANGES = {
    "method": "set",
    "settings": (("sparsity", "0.5"),),
    "model": "lenet-5",
    "data": "moons",
    "seed": 1,
    "epochs": 31,
    "batch": 65,
    "optimizer": "adam",
    "rate": "cosine:lr=0.2",
    "init": "orthogonal",
    "dtype": "float64",
    "storage": "csr",
    "weights": "0123456789abcdef",
}


def test_every_part_changes_the_key() -> None:
    assert set(CHANGES) == {f.name for f in fields(RunSpec)}
    specs = [RunSpec("rigl")] + [replace(RunSpec("rigl"), **{k: v}) for k, v in CHANGES.items()]
    assert len({spec.key for spec in specs}) == len(specs)
    for spec in specs:
        assert list(json.loads(spec.canonical())) == sorted(json.loads(spec.canonical()))
        assert RunSpec.from_json(spec.canonical()) == spec
        assert RunSpec.from_json(spec.to_json()) == spec
        assert RunSpec.stored(json.loads(spec.canonical())) == spec
        assert RunSpec.stored(json.loads(spec.canonical())).key == spec.key


def test_storage_is_named_only_where_it_is_not_the_usual() -> None:
    assert "storage" not in RunSpec("set", storage="masked").canonical()
    assert RunSpec("set", storage="csr").label == "set 0.9 in csr, lenet-300-100 on digits, seed 0"
    assert RunSpec.stored({"method": "set"}).storage == "masked"  # results from before there was a choice
    with pytest.raises(UnknownNameError, match="Did you mean 'condensed'"):
        RunSpec("set", storage="condensd")


def test_sparsity_and_label() -> None:
    assert RunSpec("dense").sparsity == 0.0
    assert RunSpec("rigl").sparsity == 0.9
    spec = RunSpec("rigl", (("sparsity", "0.95"), ("every", "20")), seed=3)
    assert spec.sparsity == 0.95
    assert spec.label == "rigl 0.95 every=20, lenet-300-100 on digits, seed 3"
    assert RunSpec("dense").label == "dense, lenet-300-100 on digits, seed 0"
    assert spec.build().every == 20


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ({"method": "rigll"}, UnknownNameError),
        ({"model": "lenet"}, UnknownNameError),
        ({"data": "digit"}, UnknownNameError),
        ({"init": "kaiming"}, UnknownNameError),
        ({"dtype": "float16"}, UnknownNameError),
        ({"settings": (("x", "1"),)}, UnknownNameError),
        ({"optimizer": "sdg"}, UnknownNameError),
        ({"rate": "cosine:lr=-1"}, UsageError),
        ({"seed": -1}, UsageError),
        ({"seed": True}, UsageError),
        ({"epochs": 0}, UsageError),
        ({"epochs": 1.0}, UsageError),
        ({"batch": "64"}, UsageError),
    ],
)
def test_unusable_parts(parts: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        RunSpec(**({"method": "rigl"} | parts))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{", "cannot be read"),
        ("[]", "no method"),
        ("3", "cannot be read"),
        ('{"method": "rigl", "settings": 3}', "cannot be read"),
        ("{}", "no method"),
        ('{"format": 2, "method": "rigl"}', "another format"),
        ('{"method": "rigl", "epoch": 3}', "Did you mean 'epochs'"),
    ],
)
def test_unusable_json(source: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        RunSpec.from_json(source)


def test_a_stored_spec_outlives_its_method() -> None:
    facts = {"format": 1, "method": "gone", "settings": {"b": "2", "a": "1"}, "seed": 4}
    spec = RunSpec.stored(facts)
    assert (spec.method, spec.settings, spec.seed, spec.epochs) == ("gone", (("a", "1"), ("b", "2")), 4, 30)
    with pytest.raises(UnknownNameError):
        RunSpec.from_json(facts)
