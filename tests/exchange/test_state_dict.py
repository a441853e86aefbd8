"""State dicts of PyTorch become networks that compute the same, and networks become such state dicts."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minisparse.errors import DataFormatError, UnknownNameError, UsageError
from minisparse.exchange import fingerprint, from_torch, load_into, read, to_torch, write
from minisparse.exchange.layout import to_kernel, to_matrix
from minisparse.exchange.matching import match, translated
from minisparse.exchange.shortcut import widened
from minisparse.methods.base import layer_shapes
from minisparse.nn.conv import Conv2d
from minisparse.nn.linear import Linear
from minisparse.nn.models import make
from minisparse.nn.network import Network
from minisparse.nn.norm import BatchNorm2d
from minisparse.nn.pool import Flatten
from minisparse.nn.residual import Residual, Sequence, SubsamplePad
from minisparse.nn.weight import MaskedWeight
from minisparse.nn.window import Window

from . import torch_twin as twin

IMAGES = SimpleNamespace(sample_shape=(1, 8, 8), outputs=10)
WIDTHS = (4, 8, 16)
SMALL = "resnet-20:0.25"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def images(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((3, 1, 8, 8))


def close(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11 * np.abs(b).max())


def shuffled(state: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """The same in another order: nothing may depend on it."""
    return {key: state[key] for key in rng.permutation(sorted(state))}


@given(
    hnp.array_shapes(min_dims=4, max_dims=4, max_side=4).flatmap(
        lambda shape: st.just(np.arange(np.prod(shape)).reshape(shape))
    )
)
def test_columns_go_tap_by_tap_with_the_channel_fastest(kernel: np.ndarray) -> None:
    out, channels, kh, kw = kernel.shape
    matrix = to_matrix(kernel)
    for o, c, ky, kx in np.ndindex(kernel.shape):
        assert matrix[o, (ky * kw + kx) * channels + c] == kernel[o, c, ky, kx]
    np.testing.assert_array_equal(to_kernel(matrix, kernel.shape), kernel)


def test_lenet_5_computes_the_same(rng: np.random.Generator) -> None:
    """Asymmetric in every axis: a wrong order of channels, rows, columns or flattened pixels shows."""
    state, x = twin.draw(rng, twin.LENET_5), images(rng)
    network = from_torch(shuffled(state, rng), "lenet-5", IMAGES)
    assert network.dtype == np.float64
    close(network.predict(x), twin.lenet5(state, x))
    back = to_torch(network)
    assert set(back) == set(state)
    for key, value in state.items():
        np.testing.assert_array_equal(back[key], value)


def test_sequential_mlps_are_told_by_shape_and_number(rng: np.random.Generator) -> None:
    """Places 2, 4, ..., 12 of a Sequential; as text '10' stands before '2'."""
    shapes: dict[str, Any] = {}
    for place in range(0, 14, 2):
        shapes |= twin.layer(f"net.{place}", 10 if place == 12 else 64, 64)
    state, x = twin.draw(rng, shapes), images(rng)
    network = from_torch(shuffled(state, rng), "mlp:64-64-64-64-64-64-64-10", IMAGES)
    y = x
    for place in range(0, 14, 2):
        y = twin.linear(y, state, f"net.{place}")
        y = twin.relu(y) if place < 12 else y
    close(network.predict(x), y)


def test_vgg_with_biases_in_front_of_batchnorm(rng: np.random.Generator) -> None:
    state, x = twin.draw(rng, twin.vgg_shapes()), images(rng)
    network = from_torch(shuffled(state, rng), "vgg-small", IMAGES)
    expected = twin.vgg(state, x)
    close(network.predict(x), expected)
    back = to_torch(network, like=state)  # the biases are 0 now, and the running means moved
    assert {key: a.shape for key, a in back.items()} == {key: a.shape for key, a in state.items()}
    assert not back["features.0.bias"].any()
    close(twin.vgg(back, x), expected)


@pytest.mark.parametrize(
    ("padding", "last", "prefix"), [("centre", "linear", "compressible_"), ("end", "fc", "")]
)
def test_resnets_of_both_shortcuts(rng: np.random.Generator, padding: str, last: str, prefix: str) -> None:
    shapes = twin.resnet_shapes(WIDTHS, last)
    state, x = twin.draw(rng, shapes), images(rng)
    renamed = {
        "module." + key.replace("conv", f"{prefix}conv").replace(last, prefix + last): value
        for key, value in state.items()
    }
    network = from_torch(shuffled(renamed, rng), SMALL, IMAGES, padding=padding)
    expected = twin.resnet(state, x, WIDTHS, padding == "centre", last)
    close(network.predict(x), expected)
    other = from_torch(renamed, SMALL, IMAGES, padding={"centre": "end", "end": "centre"}[padding])
    assert np.abs(other.predict(x) - expected).max() > 1e-3  # so padding matters
    back = to_torch(network, like=renamed, padding=padding)
    for key, value in renamed.items():
        if not key.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(back[key], value)


def test_padding_must_be_said_for_foreign_residual_networks_only(rng: np.random.Generator) -> None:
    state = twin.draw(rng, twin.resnet_shapes(WIDTHS))
    with pytest.raises(UsageError, match="expected 'end' .* 'centre' if on both sides"):
        from_torch(state, SMALL, IMAGES)
    with pytest.raises(UnknownNameError, match="Did you mean 'centre'"):
        from_torch(state, SMALL, IMAGES, padding="center")
    own = to_torch(make(SMALL, (1, 8, 8), 10))
    assert "block1_1.conv1.weight" in own and "block3_3.bn2.running_var" in own
    x = images(rng)
    close(from_torch(own, SMALL, IMAGES).predict(x), make(SMALL, (1, 8, 8), 10).predict(x))


@given(st.integers(1, 5), st.integers(0, 4), st.integers(0, 4))
def test_widening_follows_the_channels_of_a_padded_image(c: int, more: int, again: int) -> None:
    """Equation (1) against two paddings of an image whose channels carry their number, 0 for empty ones."""
    theirs = np.arange(1, c + 1)
    order = np.arange(c)
    for extra in (more, again):
        theirs = np.pad(theirs, (extra // 2, extra - extra // 2))
        order = widened(order, len(order) + extra)
    assert sorted(order) == list(range(c + more + again))
    np.testing.assert_array_equal(theirs[order], np.pad(np.arange(1, c + 1), (0, more + again)))


def test_pre_activation_blocks_and_pixels_behind_them(rng: np.random.Generator) -> None:
    """BatchNorm in front of a block's convolutions and behind all blocks; a classifier of all pixels."""

    def conv(i: int, o: int) -> Conv2d:
        weight = MaskedWeight(np.zeros((o, 9 * i)), (o, i, 3, 3))
        return Conv2d(weight, Window.of(3, padding=1))

    def block(i: int, o: int) -> Residual:
        pad = Sequence({"pad": SubsamplePad(1, o)}) if o > i else None
        return Residual(Sequence({"bn": BatchNorm2d(i), "conv1": conv(i, 5), "conv2": conv(5, o)}), pad)

    head = Linear(MaskedWeight(np.zeros((3, 4 * 7))), np.zeros(3))
    layers = {"a": block(1, 4), "b": block(4, 7), "c": block(7, 7), "bn": BatchNorm2d(7)}
    network = Network({**layers, "flatten": Flatten(), "fc": head}, (1, 2, 2)).astype(np.float64)
    state = twin.draw(rng, {key: value.shape for key, value in to_torch(network).items()})
    load_into(network, state, padding="centre")
    x = y = rng.standard_normal((2, 1, 2, 2))
    for name in "abc":
        z = twin.norm(y, state, f"{name}.bn")
        for part in ("conv1", "conv2"):
            z = twin.conv(z, state[f"{name}.{part}.weight"], padding=1)
        more = z.shape[1] - y.shape[1]
        y = z + np.pad(y, [(0, 0), (more // 2, more - more // 2), (0, 0), (0, 0)])
    close(network.predict(x), twin.linear(twin.norm(y, state, "bn"), state, "fc"))


def test_fingerprints_tell_networks_apart() -> None:
    network = make("mlp:3-4-2", (3,), 2)
    found = {fingerprint(network)}
    network.params()["fc2.bias"].value[0] = 1e-30
    found.add(fingerprint(network))
    network.prunable()["fc1"].weight.params()["weight"].value[0, 0] = 0
    found.add(fingerprint(network))
    mask = np.ones((4, 3), dtype=bool)
    mask[0, 0] = False
    network.prunable()["fc1"].weight.rewire(mask)  # the same numbers, one of them absent
    found.add(fingerprint(network))
    assert len(found) == 4 and fingerprint(network.copy()) in found


def test_masks_of_torch_prune_go_both_ways(rng: np.random.Generator) -> None:
    network = make("lenet-5", (1, 8, 8), 10)
    for layer in network.prunable().values():
        mask = rng.random(layer.weight.shape) < 0.4
        layer.weight.rewire(mask)
    network.prunable()["fc3"].weight.params()["weight"].value[...] *= 0  # present, though all are 0
    state = to_torch(network, masks=True)
    assert "conv2.weight" not in state and state["conv2.weight_mask"].dtype == np.float32
    assert state["conv2.weight_mask"].shape == state["conv2.weight_orig"].shape == (16, 6, 3, 3)
    loaded = from_torch(state, "lenet-5", IMAGES)
    for name, layer in network.prunable().items():
        np.testing.assert_array_equal(loaded.masks()[name], layer.weight.mask)
        np.testing.assert_array_equal(loaded.prunable()[name].weight.dense(), layer.weight.dense())
    state["conv1.weight_orig"] += 1  # what a mask hides has a value in PyTorch, and none here
    hidden = from_torch(state, "lenet-5", IMAGES).prunable()["conv1"].weight
    assert not hidden.dense()[~network.masks()["conv1"]].any()
    state["conv1.weight_mask"] *= 0.5
    with pytest.raises(DataFormatError, match="'conv1.weight_mask' is no mask|'conv1.mask'"):
        from_torch(state, "lenet-5", IMAGES)


def test_zeros_are_absent_only_when_asked(rng: np.random.Generator) -> None:
    state = twin.draw(rng, twin.LENET_5)
    state["fc2.weight"][:, ::2] = 0  # as torch.nn.utils.prune.remove leaves it
    assert from_torch(state, "lenet-5", IMAGES).masks()["fc2"].all()
    masks = from_torch(state, "lenet-5", IMAGES, absent_zeros=True).masks()
    np.testing.assert_array_equal(masks["fc2"], state["fc2.weight"] != 0)
    assert masks["fc1"].all()


def test_a_1x1_convolution_is_a_linear_layer(rng: np.random.Generator) -> None:
    state = twin.draw(rng, twin.LENET_5)
    as_conv = {k: v[:, :, None, None] if k == "fc3.weight" else v for k, v in state.items()}
    x = images(rng)
    close(from_torch(as_conv, "lenet-5", IMAGES).predict(x), twin.lenet5(state, x))
    back = to_torch(from_torch(as_conv, "lenet-5", IMAGES), like=as_conv, masks=True)
    assert back["fc3.weight_orig"].shape == back["fc3.weight_mask"].shape == (10, 84, 1, 1)


def without(state: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in state.items() if k != key}


def spoiled(state: dict[str, Any], key: str, value: float) -> dict[str, Any]:
    array = state[key].copy()
    array.flat[1] = value
    return state | {key: array}


WRONG = {
    "shape": (lambda s: s | {"fc1.weight": np.ones((120, 256))}, r"'fc1.weight'.*\(120, 256\).*\(120, 64\)"),
    "transposed": (lambda s: s | {"fc2.weight": s["fc2.weight"].T.copy()}, r"'fc2.weight'.*\(120, 84\)"),
    "kernel": (lambda s: s | {"conv1.weight": np.ones((6, 1, 5, 5))}, r"'conv1.weight'.* \(6, 1, 5, 5\)"),
    "no bias": (lambda s: without(s, "conv2.bias"), "'conv2.bias' for layer 'conv2'.*got none"),
    "odd": (lambda s: s | {"fc1.scale": np.ones(3)}, "'fc1.scale' for layer 'fc1'.*expected none"),
    "extra": (lambda s: s | {"aux.weight": np.ones((10, 3))}, r"'aux.weight' has no place.*\(10, 3\)"),
    "missing": (
        lambda s: without(without(s, "fc3.weight"), "fc3.bias"),
        r"layer 'fc3' is missing.*\(10, 84\)",
    ),
    "other": (
        lambda s: without(s, "fc1.weight") | {"head.weight": np.ones((120, 256))},
        r"'head.weight' does not fit.*\(120, 256\).*\(120, 64\) as of layer 'fc1'",
    ),
    "nan": (lambda s: spoiled(s, "fc2.bias", np.nan), "'fc2.bias' for layer 'fc2' is not finite"),
    "infinite": (lambda s: spoiled(s, "conv1.weight", -np.inf), "'conv1.weight'.*not finite: got -inf"),
    "text": (lambda s: s | {"fc1.bias": "x"}, "'fc1.bias': got str, expected an array of numbers"),
    "object": (lambda s: s | {"fc1.bias": np.array([{}] * 120)}, "'fc1.bias'.*expected an array of numbers"),
    "name": (lambda s: s | {"../fc": np.ones(1)}, "tensor name '../fc'"),
    "empty": (lambda s: {}, "missing"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_one_line_and_changes_nothing(case: str, rng: np.random.Generator) -> None:
    spoil, words = WRONG[case]
    network = make("lenet-5", (1, 8, 8), 10)
    before = fingerprint(network)
    with pytest.raises(DataFormatError, match=words) as caught:
        load_into(network, spoil(twin.draw(rng, twin.LENET_5)))
    assert "\n" not in str(caught.value)
    assert fingerprint(network) == before


def test_more_of_batchnorm(rng: np.random.Generator) -> None:
    state = twin.draw(rng, twin.resnet_shapes(WIDTHS))
    with pytest.raises(DataFormatError, match="'bn1.running_var'.*expected variances >= 0"):
        from_torch(spoiled(state, "bn1.running_var", -1e-3), SMALL, IMAGES, padding="end")
    down = state | twin.draw(rng, twin.layer("layer2.0.shortcut.0", 8, 4, 1, 1, bias=False))
    with pytest.raises(DataFormatError, match="'layer2.0.shortcut.0.weight' has no place"):
        from_torch(down, SMALL, IMAGES, padding="end")


def test_equal_shapes_of_other_names_are_not_guessed(rng: np.random.Generator) -> None:
    shapes = twin.layer("encoder", 64, 64) | twin.layer("decoder", 64, 64) | twin.layer("out", 10, 64)
    state, model = twin.draw(rng, shapes), "mlp:64-64-64-10"
    with pytest.raises(DataFormatError, match="cannot be told apart: got modules 'encoder', 'decoder'"):
        from_torch(state, model, IMAGES)
    x = images(rng)
    network = from_torch(state, model, IMAGES, names={"fc1": "encoder", "fc2": "decoder"})
    hidden = twin.relu(twin.linear(twin.relu(twin.linear(x, state, "encoder")), state, "decoder"))
    close(network.predict(x), twin.linear(hidden, state, "out"))
    for names in ({"fc9": "encoder"}, {"fc1": "enkoder"}, {"fc1": "encoder", "fc2": "encoder"}):
        with pytest.raises(UsageError, match="names: got"):
            from_torch(state, model, IMAGES, names=names)


def test_pairs_are_reported() -> None:
    ours = {"fc1": {"weight": (3, 2)}, "fc2": {"weight": (4, 3)}}
    theirs = {"out": {"weight": (4, 3)}, "in": {"weight": (3, 2)}}
    assert match(ours, theirs) == {"fc1": "in", "fc2": "out"}
    assert translated("module.layer2.0.compressible_conv1") == "block2_1.conv1"
    assert translated("block3_2.branch.bn2") == "block3_2.bn2"
    network = make("mlp:2-3-4", (2,), 4)
    assert load_into(network, to_torch(network)) == {"fc1": "fc1", "fc2": "fc2"}


@settings(max_examples=10)
@given(st.sampled_from(["lenet-5", "mlp:64-9-10", SMALL]), st.integers(0, 99), st.booleans())
def test_files_keep_networks_exactly(tmp_path_factory: Any, model: str, seed: int, masks: bool) -> None:
    network = make(model, (1, 8, 8), 10, seed)
    rng = np.random.default_rng(seed)
    for layer in network.prunable().values():
        layer.weight.rewire(rng.random(layer.weight.shape) < 0.5)
    folder = tmp_path_factory.mktemp("kept")
    for ending in (".safetensors", ".npz"):
        write(to_torch(network, masks=masks), folder / f"a{ending}")
        loaded = from_torch(folder / f"a{ending}", model, IMAGES, absent_zeros=not masks)
        assert fingerprint(loaded) == fingerprint(network)
        assert fingerprint(loaded.astype(np.float64)) != fingerprint(network)


def test_16_bit_floats_widen(tmp_path: Any, rng: np.random.Generator) -> None:
    state = {k: v.astype(np.float16) for k, v in twin.draw(rng, twin.LENET_5).items()}
    write(state, tmp_path / "half.safetensors")
    write(state, tmp_path / "half.npz")
    for file in ("half.safetensors", "half.npz"):
        network = from_torch(tmp_path / file, "lenet-5", IMAGES)
        assert network.dtype == np.float32
        np.testing.assert_array_equal(
            network.params()["fc1.bias"].value, state["fc1.bias"].astype(np.float32)
        )
    huge = state | {"fc1.bias": np.full(120, 1e39)}  # fits a float64 network, not a float32 one
    with pytest.raises(DataFormatError, match="not finite: got 1e\\+39.*float32"):
        load_into(make("lenet-5", (1, 8, 8), 10), huge)


def test_own_exports_read_back(tmp_path: Any) -> None:
    """`minisparse export` without --names: matrices, masks and geometry."""
    network = make("lenet-5", (1, 8, 8), 10)
    rng = np.random.default_rng(0)
    state: dict[str, np.ndarray] = {}
    for name, layer in network.prunable().items():
        layer.weight.rewire(rng.random(layer.weight.shape) < 0.5)
        state[f"{name}.weight"], state[f"{name}.mask"] = layer.weight.dense(), layer.weight.mask
        state[f"{name}.geometry"] = np.array(layer.weight.geometry)
        state[f"{name}.bias"] = layer.bias.value
    write(state, tmp_path / "own.npz")
    assert fingerprint(from_torch(tmp_path / "own.npz", "lenet-5", IMAGES)) == fingerprint(network)
    for wrong in ([16, 6, 3, 2], [16, 54], [16.0, 6.0, 3.0, 3.0], [16, -6, -3, 3]):
        with pytest.raises(DataFormatError, match="'conv2.geometry'"):
            from_torch(state | {"conv2.geometry": np.array(wrong)}, "lenet-5", IMAGES)


def test_what_is_loaded_prunes(rng: np.random.Generator) -> None:
    network = from_torch(twin.draw(rng, twin.LENET_5), "lenet-5", IMAGES)
    assert all(type(layer.weight) is MaskedWeight for layer in network.prunable().values())
    assert isinstance(network.prunable()["conv1"], Conv2d) and len(layer_shapes(network)) == 5
    weight = network.prunable()["conv2"].weight
    source = weight.dense().copy()
    weight.rewire(np.abs(source) > np.median(np.abs(source)))
    assert weight.kept == source.size // 2


def test_a_source_is_not_written_to(tmp_path: Any, rng: np.random.Generator) -> None:
    state = twin.draw(rng, twin.LENET_5)
    copies = {key: value.copy() for key, value in state.items()}
    network = from_torch(state, "lenet-5", IMAGES)
    for p in network.params().values():
        p.value[...] = 0
    for key, value in state.items():
        np.testing.assert_array_equal(value, copies[key])
    exported = to_torch(network)
    for value in exported.values():
        value[...] = 1
    assert not any(p.value.any() for p in network.params().values())
    write(state, tmp_path / "a.npz")
    assert set(read(tmp_path / "a.npz")) == set(state)
