"""Controls: what a shuffle keeps and what it moves, new weights, the other end of a ranking, and text."""

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.errors import UnknownNameError, UsageError
from minisparse.nn.init import INITIALIZERS
from minisparse.nn.models import make
from minisparse.rng import generator
from minisparse.sparsity import (
    NM,
    Block,
    Column,
    InChannel,
    Invert,
    LayerShape,
    Reinit,
    Row,
    Shuffle,
    Unstructured,
    Untouched,
    combine,
    parse_control,
    to_text,
    top_k,
)
from minisparse.sparsity.control import shuffled
from tests.methods.problems import conv_net, mlp
from tests.strategies import SETTINGS

PATTERNS = (Unstructured(), Row(), Column(), InChannel(), Block(2, 3), Block(3, 4))
ALL = (Untouched(), Reinit(), Reinit(True), Shuffle(), Invert())


@SETTINGS
@given(
    st.sampled_from(PATTERNS), st.integers(1, 9), st.integers(1, 5), st.sampled_from([1, 2, 3]),
    st.integers(0, 999),
)  # fmt: skip
def test_a_shuffle_keeps_the_count_and_the_pattern(pattern, out, channels, taps, seed) -> None:
    rng, shape = np.random.default_rng(seed), LayerShape(out, channels, taps, 1)
    units = rng.random(pattern.sizes(shape).shape) < 0.4
    mask = pattern.spread(units, shape)
    moved = shuffled(mask, shape, pattern, rng)
    assert moved.sum() == mask.sum()
    np.testing.assert_array_equal(pattern.spread(pattern.total(moved.astype(int), shape) > 0, shape), moved)


def test_a_shuffle_is_uniform_over_all_masks_of_its_count() -> None:
    # 2 of 4 entries: 6 masks, 1 - 1/6 of the shuffles move something, overlap 2 * 2 / 4 on average
    rng, shape, mask = np.random.default_rng(0), LayerShape(2, 2), np.array([[True, True], [False, False]])
    drawn = [shuffled(mask, shape, Unstructured(), rng) for _ in range(3000)]
    counts = [sum((d.ravel()[list(c)]).all() for d in drawn) for c in combinations(range(4), 2)]
    assert sum(counts) == 3000 and comb(4, 2) == 6
    np.testing.assert_allclose(counts, 500, atol=5 * np.sqrt(500))
    overlap = np.mean([(d & mask).sum() for d in drawn])
    np.testing.assert_allclose(overlap, 1.0, atol=0.06)


def test_a_large_mask_is_moved_and_each_layer_keeps_its_own_count() -> None:
    rng = np.random.default_rng(1)
    shapes = {"a": LayerShape(20, 30), "b": LayerShape(10, 4, 3, 3)}
    masks = {name: rng.random(s.matrix) < 0.2 for name, s in shapes.items()}
    moved = Shuffle().masks(masks, shapes, Unstructured(), rng)
    for name, mask in masks.items():
        assert moved[name].sum() == mask.sum() and (moved[name] != mask).any()
    # an empty and a full layer have no other mask
    ends = {"a": np.ones((20, 30), bool), "b": np.zeros((10, 36), bool)}
    for name, mask in Shuffle().masks(ends, shapes, Unstructured(), rng).items():
        np.testing.assert_array_equal(mask, ends[name])


def test_groups_of_n_to_m_are_shuffled_each_for_itself() -> None:
    rng, shape = np.random.default_rng(2), LayerShape(16, 12)
    mask = NM(1, 4).eligible(rng.random(shape.matrix), shape, np.ones(shape.matrix, bool))
    moved = shuffled(mask, shape, NM(1, 4), rng)
    assert (moved.reshape(16, 3, 4).sum(axis=2) == 1).all() and (moved != mask).any()
    whole = np.ones(shape.matrix, bool)
    np.testing.assert_array_equal(shuffled(whole, shape, NM(1, 4), rng), whole)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=30), st.data())
def test_inverted_scores_keep_the_lowest(values, data) -> None:
    k = data.draw(st.integers(0, len(values)))
    scores = np.array(values)
    kept = top_k(Invert().scores({"a": scores})["a"], k)
    assert sorted(scores[kept]) == sorted(values)[:k]


def test_inverting_half_of_distinct_scores_is_the_complement_and_twice_is_nothing() -> None:
    scores = {"a": np.random.default_rng(0).permutation(10).astype(float)}
    np.testing.assert_array_equal(top_k(Invert().scores(scores)["a"], 5), ~top_k(scores["a"], 5))
    np.testing.assert_array_equal(Invert().scores(Invert().scores(scores))["a"], scores["a"])


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_new_weights_leave_masks_alone_and_differ_everywhere(kind: str) -> None:
    rng = np.random.default_rng(3)
    network = mlp((6, 8, 3), rng) if kind == "mlp" else conv_net(rng)
    for layer in network.prunable().values():
        layer.weight.rewire(rng.random(layer.weight.shape) < 0.5)
    before, masks = network.state(), network.masks()
    assert Reinit().weights(network, rng) and not Untouched().weights(network, rng)
    for name, layer in network.prunable().items():
        new, old = layer.weight.dense(), before[f"{name}.weight"]
        np.testing.assert_array_equal(layer.weight.mask, masks[name])
        assert not new[~masks[name]].any() and (new != old)[masks[name]].all()
        assert layer.bias is None or not layer.bias.value.any()


@pytest.mark.parametrize("name", ["lenet-5", "vgg-small", "resnet-20:0.25"])
@pytest.mark.parametrize("init", INITIALIZERS)
def test_reinitialising_a_model_is_making_it_of_that_stream(name: str, init: str) -> None:
    network, twin = make(name, (1, 8, 8), 10, seed=1, init=init), make(name, (1, 8, 8), 10, seed=2, init=init)
    for array in (*(p.value for p in network.params().values()), *network.buffers().values()):
        array += 1
    network.reinitialise(generator(2, "init"))
    for key, value in twin.state().items():
        np.testing.assert_array_equal(network.state()[key], value, err_msg=key)


def test_augmented_weights_are_the_new_ones_over_the_root_of_the_density() -> None:
    # arXiv:1902.09574: 784 -> 300 at 90 %, Glorot's limit 0.0743980 becomes 0.2352670
    limit = np.sqrt(6 / (784 + 300))
    np.testing.assert_allclose([limit, limit / np.sqrt(0.1)], [0.0743980, 0.2352670], atol=5e-8)
    network = make("mlp:784-300-10", (784,), 10, init="xavier-uniform").astype(np.float64)
    rng = np.random.default_rng(0)
    masks = {"fc1": rng.permutation(235_200).reshape(300, 784) < 23_520, "fc2": np.ones((10, 300), bool)}
    for name, layer in network.prunable().items():
        layer.weight.rewire(masks[name])
    plain, wide = network.copy(), network.copy()
    Reinit().weights(plain, generator(0, "x"))
    Reinit(augmented=True).weights(wide, generator(0, "x"))
    a, b = (n.prunable()["fc1"].weight.dense() for n in (plain, wide))
    np.testing.assert_allclose(b, a / np.sqrt(0.1), rtol=1e-12)
    np.testing.assert_allclose(np.abs(b).max(), 0.2352670, rtol=1e-3)
    np.testing.assert_array_equal(*(n.prunable()["fc2"].weight.dense() for n in (plain, wide)))


def test_a_combination_does_what_its_parts_do_in_any_order() -> None:
    both = combine(Shuffle(), Reinit(), Untouched())
    assert both == combine(Reinit(), Shuffle()) and hash(both) == hash(combine(Reinit(), Shuffle()))
    assert both.moves and not combine(Reinit(), Invert()).moves
    network, rng = mlp((6, 8, 3), np.random.default_rng(0)), np.random.default_rng(4)
    shapes = {name: LayerShape(*x.weight.geometry) for name, x in network.prunable().items()}
    masks = {name: rng.random(s.matrix) < 0.5 for name, s in shapes.items()}
    alone = Shuffle().masks(masks, shapes, Unstructured(), np.random.default_rng(5))
    found = both.masks(masks, shapes, Unstructured(), np.random.default_rng(5))
    for name in masks:
        np.testing.assert_array_equal(found[name], alone[name])
    assert both.weights(network, rng)
    three = combine(Invert(), Shuffle(), Reinit())
    np.testing.assert_array_equal(three.scores({"a": np.array([1.0, 2.0])})["a"], [-1, -2])
    assert combine() == Untouched() == combine(Untouched()) and combine(Reinit()) == Reinit()


@given(st.lists(st.sampled_from(ALL), max_size=4, unique_by=type), st.booleans())
def test_controls_survive_text(parts, full: bool) -> None:
    value = combine(*parts)
    assert parse_control(to_text(value, full)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("none", Untouched()),
        ("reinit", Reinit()),
        ("reinit:true", Reinit(True)),
        ("shuffle + reinit", combine(Reinit(), Shuffle())),
        ("none+invert", Invert()),
    ],
)
def test_examples(text: str, value: object) -> None:
    assert parse_control(text) == value


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("reint", UnknownNameError, "Did you mean 'reinit'"),
        ("", UnknownNameError, "unknown control"),
        ("reinit+", UnknownNameError, "unknown control"),
        ("shuffle+shuffle", UsageError, "two or more different"),
        ("reinit+reinit:true", UsageError, "two or more different"),
        ("shuffle:3", UsageError, "expected key=value"),
        ("reinit:augmented=2", UsageError, "expected true or false"),
        (None, UsageError, "is not text"),
    ],
)
def test_what_cannot_be_read_is_one_line(text, error, words) -> None:
    with pytest.raises(error, match=words) as caught:
        parse_control(text)
    assert "\n" not in str(caught.value)


def test_flags_are_flags() -> None:
    with pytest.raises(UsageError, match="augmented"):
        Reinit(1)  # type: ignore[arg-type]
