"""A checkpoint comes back bit for bit, or not at all."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.errors import CheckpointError, UsageError
from minisparse.nn.activation import Activation
from minisparse.nn.linear import Linear
from minisparse.nn.models import make
from minisparse.nn.network import Network
from minisparse.nn.param import Array, Param
from minisparse.nn.weight import MaskedWeight
from minisparse.rng import generator
from minisparse.training import checkpoint, files
from minisparse.training.born import make_sparse
from minisparse.training.by_name import arrays_of
from minisparse.training.checkpoint import MANIFEST, load, read_manifest, save, write_atomic
from minisparse.weights.csr import CSRWeight, PanelWeight
from minisparse.weights.formats import FORMATS, convert
from minisparse.weights.pattern import CSRPattern
from minisparse.weights.sliced import SlicedWeight
from minisparse.weights.stored import StoredWeight
from tests.structures import groups
from tests.training.failing import AT_THE_END, ERRORS, a_disk_that_works, call_sites, failing

TINY = ("mlp:3-2-2", (3,), 2)


def network(
    name: str = TINY[0], shape: tuple[int, ...] = TINY[1], outputs: int = TINY[2], seed: int = 0
) -> Network:
    """A network with half of its weights pruned and all its other arrays away from their start."""
    net, rng = make(name, shape, outputs, seed), generator(seed, "test")
    for p in net.params().values():
        p.value[...] = rng.standard_normal(p.value.shape)
    for buffer in net.buffers().values():
        buffer[...] = rng.random(buffer.shape)
    for layer in net.prunable().values():
        layer.weight.rewire(rng.random(layer.weight.shape) < 0.5)
    return net


def same(a: Network, b: Network) -> bool:
    left, right = a.state(), b.state()
    arrays = left.keys() == right.keys() and all(
        left[k].tobytes() == right[k].tobytes() and left[k].dtype == right[k].dtype for k in left
    )
    return arrays and all(np.array_equal(m, b.masks()[k]) for k, m in a.masks().items())


def weights_file(folder: Path) -> Path:
    (path,) = folder.glob("weights-*.safetensors")
    return path


def reseal(folder: Path, **changes: object) -> None:
    """Change a manifest and give it the digest that belongs to the change."""
    facts = json.loads((folder / MANIFEST).read_bytes())
    facts.pop("sha256")
    facts |= changes
    text = json.dumps(facts, sort_keys=True)
    facts["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(facts, sort_keys=True, indent=1) + "\n")


@pytest.mark.parametrize(
    ("name", "shape", "outputs"),
    [TINY, ("mlp:4-3-2:tanh", (4,), 2), ("lenet-5", (1, 8, 8), 10), ("resnet-20:0.125", (3, 8, 8), 5)],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_round_trip(tmp_path: Path, name: str, shape: tuple[int, ...], outputs: int, dtype: str) -> None:
    net = network(name, shape, outputs).astype(dtype)
    save(net, tmp_path / "a" / "b", "rigl", {"sparsity": "0.5"})
    back = load(tmp_path / "a" / "b")
    assert same(net, back)
    x = generator(0, "x").random((5, *shape)).astype(dtype)
    assert np.array_equal(net.predict(x), back.predict(x))
    manifest = read_manifest(tmp_path / "a" / "b")
    assert (manifest.model, manifest.method, manifest.settings) == (name, "rigl", {"sparsity": "0.5"})
    assert (manifest.input_shape, manifest.outputs, manifest.dtype) == (shape, outputs, dtype)


def test_a_grown_weight_that_is_zero_stays_present(tmp_path: Path) -> None:
    net = network()
    weight = net.prunable()["fc1"].weight
    weight.rewire(np.ones(weight.shape, dtype=bool))
    assert (weight.dense() == 0).any()
    save(net, tmp_path)
    assert load(tmp_path).masks()["fc1"].all()


def test_an_unpruned_network_has_no_mask_to_multiply_by(tmp_path: Path) -> None:
    save(make(*TINY), tmp_path)
    assert load(tmp_path).prunable()["fc1"].weight.kept == 6


class Doubled(MaskedWeight):
    """A reparametrised weight: what multiplies is twice the parameter."""

    def params(self) -> dict[str, Param]:
        return {"half": self.param}

    def dense(self) -> Array:
        return 2 * self.param.value

    def apply(self, x: Array, mode: object) -> Array:
        return x @ self.dense().T


def test_another_weight_is_saved_as_what_it_does(tmp_path: Path) -> None:
    net = network()
    layer = net.prunable()["fc1"]
    layer.weight = Doubled(layer.weight.dense().copy(), mask=layer.weight.mask)
    x = generator(0, "x").random((4, 3)).astype(np.float32)
    expected = net.predict(x)
    save(net, tmp_path)
    back = load(tmp_path)
    assert type(back.prunable()["fc1"].weight) is MaskedWeight
    assert np.array_equal(back.predict(x), expected)
    assert np.array_equal(back.masks()["fc1"], net.masks()["fc1"])


def test_equal_networks_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(network(), tmp_path / name)
    assert weights_file(tmp_path / "a").name == weights_file(tmp_path / "b").name
    assert (tmp_path / "a" / MANIFEST).read_bytes() == (tmp_path / "b" / MANIFEST).read_bytes()


@pytest.fixture
def on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Files of a checkpoint in memory, for `load` to read from and tests to damage: 'manifest', 'weights'."""
    save(network(), tmp_path)
    kinds = {".json": "manifest", ".safetensors": "weights"}
    found = {kinds[path.suffix]: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(files, "read", lambda path, limit: found[kinds[path.suffix]])
    assert same(load(tmp_path), network())
    return found


@pytest.mark.parametrize("which", ["manifest", "weights"])
def test_every_flipped_bit_is_detected(on_disk: dict[str, bytes], which: str) -> None:
    content = on_disk[which]
    assert len(content) < 4096
    for at in range(len(content)):
        for bit in range(8):
            changed = bytearray(content)
            changed[at] ^= 1 << bit
            on_disk[which] = bytes(changed)
            with pytest.raises(CheckpointError):
                load("memory")


@pytest.mark.parametrize("which", ["manifest", "weights"])
def test_every_truncation_and_any_addition_is_detected(on_disk: dict[str, bytes], which: str) -> None:
    content = on_disk[which]
    changed = [content[:length] for length in range(len(content))]
    changed += [content + more for more in (b"\0", b" ", b"\n", content)]
    for on_disk[which] in changed:
        with pytest.raises(CheckpointError, match="manifest.json|weights-"):
            load("memory")


def test_a_file_of_another_size_is_not_read(tmp_path: Path) -> None:
    save(network(), tmp_path)
    path = weights_file(tmp_path)
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(CheckpointError, match=path.name):
        load(tmp_path)


@given(st.binary(max_size=400))
def test_any_manifest_is_refused_in_one_way(content: bytes) -> None:
    with pytest.raises(CheckpointError):
        checkpoint._parse(Path("x"), content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[1]",
        b'{"format": 1}',
        b'{"format": "1"}',
        b"[" * 100_000,
        b'{"format": NaN}',
        b"\xff\xfe{}",
    ],
)
def test_odd_manifests(tmp_path: Path, content: bytes) -> None:
    save(network(), tmp_path)
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(CheckpointError, match=MANIFEST):
        load(tmp_path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=MANIFEST):
        load(tmp_path / "nowhere")
    save(network(), tmp_path)
    path = weights_file(tmp_path)
    path.unlink()
    with pytest.raises(CheckpointError, match=path.name):
        load(tmp_path)
    path.mkdir()
    with pytest.raises(CheckpointError, match=path.name):
        load(tmp_path)


def test_a_newer_format_says_so(tmp_path: Path) -> None:
    save(network(), tmp_path)
    reseal(tmp_path, format=4)
    with pytest.raises(CheckpointError, match="newer than this program: got format 4"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "mlp:3-99999999-2"}, "too few numbers"),
        ({"model": "mlp:3-2-3", "outputs": 3}, "does not fit"),
        ({"model": "mlp:3-2-2-2"}, "does not fit"),
        ({"model": "mlp:x"}, "does not fit"),
        ({"model": "nothing"}, "does not fit"),
        ({"model": "lenet-5"}, "does not fit"),
        ({"dtype": "float64"}, "does not fit"),
        ({"dtype": "object"}, "damaged"),
        ({"outputs": 0}, "damaged"),
        ({"outputs": True}, "damaged"),
        ({"input_shape": []}, "does not fit"),
        ({"input_shape": [10**12, 10**12]}, "does not fit"),
        ({"settings": {"a": 1}}, "damaged"),
        ({"files": {}}, "damaged"),
        ({"files": {"../x.safetensors": {"size": 1, "sha256": ""}}}, "damaged"),
        ({"files": {"x.safetensors": {"size": 1}}}, "damaged"),
        ({"files": {"x.safetensors": 3}}, "damaged"),
        ({"extra": 1}, "damaged"),
    ],
)
def test_a_forged_manifest_is_refused(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    save(network(), tmp_path)
    reseal(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=words):
        load(tmp_path)


def replace_arrays(folder: Path, arrays: dict[str, Array]) -> None:
    content = files.tensors.save(arrays)
    weights_file(folder).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    reseal(folder, files={weights_file(folder).name: {"size": len(content), "sha256": digest}})


def test_arrays_that_do_not_fit_are_named(tmp_path: Path) -> None:
    net = network()
    save(net, tmp_path)
    good = arrays_of(net)
    for key, array in good.items():
        for bad in (
            {k: v for k, v in good.items() if k != key},
            good | {key: array[..., None]},
            good | {key: array.astype(np.float16)},
        ):
            replace_arrays(tmp_path, bad)
            with pytest.raises(CheckpointError, match=key):
                load(tmp_path)
    ones = good | {"fc1.weight": np.ones_like(good["fc1.weight"])}
    replace_arrays(tmp_path, ones)
    with pytest.raises(CheckpointError, match="where its mask has none"):
        load(tmp_path)
    replace_arrays(tmp_path, good)
    assert same(load(tmp_path), net)


def test_bytes_that_are_no_safetensors_are_refused_even_with_the_right_digest(tmp_path: Path) -> None:
    save(network(), tmp_path)
    for content in (b"", b"\x80\x04cos\nsystem\n.", b"\xff" * 64, b"PK\x03\x04" + bytes(60)):
        weights_file(tmp_path).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        reseal(tmp_path, files={weights_file(tmp_path).name: {"size": len(content), "sha256": digest}})
        with pytest.raises(CheckpointError, match="safetensors"):
            load(tmp_path)


@pytest.mark.parametrize("number", ERRORS)
def test_a_failing_disk_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Every system call of a save with every error."""
    old, new = network(seed=0), network(seed=1)
    sites = []
    for site in call_sites(monkeypatch, number):
        folder = tmp_path / str(len(sites))
        sites.append(site)
        with a_disk_that_works():
            save(old, folder)
        with pytest.raises(OSError, match=os.strerror(number)):
            save(new, folder)
        # the last sync is of the folder, after the new manifest has taken its place
        assert same(load(folder), new if site in AT_THE_END else old), site
        assert not list(folder.glob("*" + files.TEMPORARY)), site
    assert len(sites) == 8 + 1 + 6
    for k in range(len(sites)):
        save(new, tmp_path / str(k))
        assert same(load(tmp_path / str(k)), new)


def test_a_full_disk_while_writing_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(network(seed=0), tmp_path)
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    real = open
    with monkeypatch.context() as patch:
        patch.setitem(files.__dict__, "open", lambda path, mode: real("/dev/full", mode))
        with pytest.raises(OSError, match="No space left"):
            save(network(seed=1), tmp_path)
    assert same(load(tmp_path), network(seed=0))


class Killed(BaseException):
    """Stands for a process that ends without a chance to clean up."""


def test_a_crash_between_the_two_files_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(network(seed=0), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", failing(os.replace, 1, Killed()))  # type: ignore[arg-type]
        patch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
        with pytest.raises(Killed):
            save(network(seed=1), tmp_path)
    assert len(list(tmp_path.iterdir())) == 4  # manifest, two weight files, a temporary one
    assert same(load(tmp_path), network(seed=0))
    save(network(seed=1), tmp_path)
    assert same(load(tmp_path), network(seed=1))
    assert len(list(tmp_path.iterdir())) == 2


def test_write_atomic_replaces_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


class Squared(Activation):
    """A layer that the table of forms does not have."""


def test_what_cannot_come_back_is_not_saved(tmp_path: Path) -> None:
    ones = np.ones((2, 3), dtype=np.float32)
    own = Network({"fc": Linear(MaskedWeight(ones)), "a": Squared("relu")}, (3,))
    torn = network()  # its layers fit together no more
    torn.layers["fc1"] = Linear(MaskedWeight(ones[:1]), np.zeros(1, dtype=np.float32))
    for net in (own, torn):
        with pytest.raises(UsageError, match="cannot be saved"):
            save(net, tmp_path)
    with pytest.raises(UsageError, match="complex128"):
        save(network().astype(np.complex128), tmp_path)
    assert not list(tmp_path.iterdir())


def stored(kinds: tuple[str, ...] = ("csr", "sliced"), dtype: str = "float32") -> Network:
    """A network whose layers are stored in these formats in turn; one entry of each is a present 0."""
    net = make("mlp:8-12-8-4", (8,), 4, seed=1).astype(dtype)
    rng = generator(1, "test")
    for k, layer in enumerate(net.prunable().values()):
        shape, kind = layer.weight.shape, kinds[k % len(kinds)]
        mask = rng.random(shape) < 0.5
        mask = groups(rng, *shape, 2, 4) if kind in ("nm", "condensed") else mask
        layer.weight.rewire(np.repeat(mask[::4], 4, axis=0) if kind == "block" else mask)
        dense = layer.weight.dense()
        dense.reshape(-1)[layer.weight.flat[0]] = 0
        layer.weight = convert(layer.weight, kind)
        layer.bias.value[...] = rng.standard_normal(shape[0])
    return net


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kinds", [*((name,) for name in FORMATS), ("csr", "masked"), ("masked",)])
def test_stored_weights_come_back_in_their_format(tmp_path: Path, kinds: tuple[str, ...], dtype: str) -> None:
    net = stored(kinds, dtype)
    save(net, tmp_path)
    back = load(tmp_path)
    assert same(net, back)
    for name, layer in net.prunable().items():
        twin = back.prunable()[name].weight
        assert type(twin) is type(layer.weight) and twin.geometry == layer.weight.geometry
        np.testing.assert_array_equal(twin.flat, layer.weight.flat)
    x = generator(0, "x").random((5, 8)).astype(dtype)
    assert np.array_equal(net.predict(x), back.predict(x))
    wanted = 1 if kinds == ("masked",) else 2
    assert json.loads((tmp_path / MANIFEST).read_bytes())["format"] == wanted
    save(back, tmp_path / "again")
    assert weights_file(tmp_path / "again").read_bytes() == weights_file(tmp_path).read_bytes()


def test_settings_of_a_format_come_back(tmp_path: Path) -> None:
    net = network()
    first, second = net.prunable().values()
    first.weight = convert(first.weight, "panels", narrower=2)
    second.weight = convert(second.weight, "sliced", rows_per_lane=3)
    save(net, tmp_path)
    one, two = (layer.weight for layer in load(tmp_path).prunable().values())
    assert isinstance(one, PanelWeight) and one.narrower == 2
    assert isinstance(two, SlicedWeight) and two.rows_per_lane == 3
    assert read_manifest(tmp_path).storage["fc1"] == {"format": "panels", "narrower": 2}


def test_a_stored_convolution(tmp_path: Path) -> None:
    net = network("lenet-5", (1, 8, 8), 10)
    for layer in net.prunable().values():
        layer.weight = convert(layer.weight, "csr")
    save(net, tmp_path)
    assert same(load(tmp_path), net)


def test_no_matrix_is_formed_of_a_stored_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer of 40,000 x 40,000 entries; the file has what is present, and little more."""

    def dense(self: StoredWeight) -> Array:
        raise AssertionError("a matrix was asked for")

    net = make_sparse("mlp:30-40000-40000-5", (30,), 5, 1 - 3e5 / 1.6014e9)
    monkeypatch.setattr(StoredWeight, "dense", dense)
    monkeypatch.setattr(StoredWeight, "mask", property(dense))
    save(net, tmp_path)
    back = load(tmp_path)
    for name, layer in net.prunable().items():
        twin = back.prunable()[name].weight
        assert type(twin) is CSRWeight
        np.testing.assert_array_equal(twin.flat, layer.weight.flat)
        np.testing.assert_array_equal(twin.values, layer.weight.values)
    assert weights_file(tmp_path).stat().st_size < 8 * 300_000 + 16 * 80_000 + 4096


@pytest.mark.parametrize("which", ["manifest", "weights"])
def test_flipped_bytes_of_a_stored_network_are_detected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    save(stored(), tmp_path)
    kinds = {".json": "manifest", ".safetensors": "weights"}
    found = {kinds[path.suffix]: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(files, "read", lambda path, limit: found[kinds[path.suffix]])
    content = found[which]
    for at in range(len(content)):
        changed = bytearray(content)
        changed[at] ^= 0x10
        found[which] = bytes(changed)
        with pytest.raises(CheckpointError):
            load("memory")


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        ({"fc1": {"format": "csr"}}, "other arrays"),
        (
            {"fc1": {"format": "csrr"}, "fc2": {"format": "csr"}, "fc3": {"format": "csr"}},
            "with its settings",
        ),
        ({"fc1": {"format": "csr", "x": 1}}, "with its settings"),
        ({"fc1": {"format": "panels", "narrower": -1}}, "expected an integer"),
        ({"fc1": {"format": "panels"}}, "with its settings"),
        ({"fc9": {"format": "csr"}}, "fc9"),
        ({"fc1": {"format": 1}}, "damaged"),
        ({"fc1": {}}, "damaged"),
        ({"fc1": "csr"}, "damaged"),
        ({"fc1": {"format": "condensed"}}, "condensed"),
        (["csr"], "damaged"),
        ({}, "does not fit|damaged"),
    ],
)
def test_forged_storage_is_refused(tmp_path: Path, storage: object, words: str) -> None:
    save(stored(("csr",)), tmp_path)
    reseal(tmp_path, storage=storage)
    with pytest.raises(CheckpointError, match=words):
        load(tmp_path)


def test_a_model_that_needs_more_than_the_file_has_is_refused(tmp_path: Path) -> None:
    save(stored(("csr",)), tmp_path)
    for model in ("mlp:8-99999999-8-4", "mlp:8-12-99999999-4"):
        reseal(tmp_path, model=model)
        with pytest.raises(CheckpointError, match="too few numbers"):
            load(tmp_path)


def test_arrays_of_stored_layers_that_do_not_fit_are_named(tmp_path: Path) -> None:
    net = stored(("csr",))
    save(net, tmp_path)
    good = arrays_of(net)
    indices, indptr = good["fc1.indices"], good["fc1.indptr"]
    swapped = indices.copy()
    swapped[:2] = swapped[1::-1]
    bad = {
        "fc1.weight": good["fc1.weight"].astype(np.float64),
        "fc1.indices": indices.astype(np.int64),
        "fc1.indptr": indptr[:-1],
        "fc2.indptr": good["fc2.indptr"][::-1].copy(),
    }
    changes = [{key: array} for key, array in bad.items()]
    changes += [
        {"fc1.indices": indices + 200},
        {"fc1.indices": swapped},
        {"fc1.weight": good["fc1.weight"][1:]},
    ]
    for change in changes:
        replace_arrays(tmp_path, good | change)
        with pytest.raises(CheckpointError, match="does not fit.*fc[12]"):
            load(tmp_path)
    for key in good:
        replace_arrays(tmp_path, {k: v for k, v in good.items() if k != key})
        with pytest.raises(CheckpointError, match=key):
            load(tmp_path)
    replace_arrays(tmp_path, good)
    assert same(load(tmp_path), net)


class Unnamed(CSRWeight):
    """A format that no name leads back to."""


def test_a_format_without_a_name_is_not_saved(tmp_path: Path) -> None:
    net = network()
    layer = net.prunable()["fc1"]
    layer.weight = Unnamed(CSRPattern.from_flat(np.array([1, 4]), (2, 3)), np.ones(2, dtype=np.float32))
    with pytest.raises(UsageError, match="Unnamed, expected a format with a name"):
        save(net, tmp_path)
    assert not list(tmp_path.iterdir())
