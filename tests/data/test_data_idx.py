"""IDX files: what is accepted is exactly the encoding of what is returned; the rest is refused."""

import gzip
import hashlib
import os
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minisparse.data import idx
from minisparse.errors import DataFormatError, UsageError

TYPES = ["u1", "i1", "i2", "i4", "f4", "f8"]
SMALL = np.arange(24, dtype="u1").reshape(2, 3, 4)


def write(folder, content, name="file.idx"):
    path = folder / name
    path.write_bytes(content)
    return path


def numbers(dtype):
    if np.dtype(dtype).kind == "f":
        return hnp.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False)
    return hnp.from_dtype(np.dtype(dtype))


arrays = st.sampled_from(TYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(max_dims=5, max_side=4), elements=numbers(dtype))
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("idx")


@settings(max_examples=80, deadline=None)
@given(array=arrays, zipped=st.booleans())
def test_round_trip(array, zipped, idx_bytes, folder):
    content = idx_bytes(array)
    result = idx.read_idx(write(folder, gzip.compress(content) if zipped else content))
    assert result.dtype == array.dtype and result.dtype.isnative
    assert result.shape == array.shape
    assert result.tobytes() == array.tobytes()


def test_compression_is_recognised_by_content_not_by_name(idx_bytes, tmp_path):
    assert np.array_equal(idx.read_idx(write(tmp_path, idx_bytes(SMALL), "a.gz")), SMALL)
    zipped = gzip.compress(idx_bytes(SMALL))
    assert np.array_equal(idx.read_idx(str(write(tmp_path, zipped, "a"))), SMALL)


@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [
        (0, 1, "is no IDX file at byte 0: got 0x0100"),
        (1, 8, "is no IDX file at byte 0"),
        (2, 0x0A, "unknown type code at byte 2: got 0x0a"),
        (3, 0, "number of axes at byte 3: got 0"),
        (3, 9, "number of axes at byte 3: got 9"),
        (11, 0, "empty axis at byte 8"),
        (7, 3, "too short for its values at byte 16: got at most 24, expected 36 bytes"),
        (7, 1, "goes on after its end at byte 28"),
        (4, 255, "declares too much for its values at byte 16"),
    ],
)
def test_errors_name_file_and_byte(offset, value, words, idx_bytes, tmp_path):
    content = bytearray(idx_bytes(SMALL))
    content[offset] = value
    path = write(tmp_path, content)
    with pytest.raises(DataFormatError, match=words) as caught:
        idx.read_idx(path)
    assert repr(str(path)) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_value_is_refused_with_its_offset(bad, idx_bytes, tmp_path):
    path = write(tmp_path, idx_bytes(np.array([1.0, bad, 2.0])))
    with pytest.raises(DataFormatError, match="bad value at byte 16"):
        idx.read_idx(path)


@pytest.mark.parametrize("zipped", [False, True])
def test_every_truncation_and_extension_is_refused(zipped, idx_bytes, tmp_path):
    content = idx_bytes(SMALL)
    content = gzip.compress(content, mtime=0) if zipped else content
    for length in range(len(content)):
        with pytest.raises(DataFormatError):
            idx.read_idx(write(tmp_path, content[:length]))
    for extra in (b"\x01", b"more", content):
        with pytest.raises(DataFormatError):
            idx.read_idx(write(tmp_path, content + extra))


def mutated(content, seed):
    """A few bytes replaced, removed or inserted, at random places."""
    rng = np.random.default_rng(seed)
    result = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(len(result)))
        if rng.random() < 0.5:
            place = min(place, 15)  # the header deserves half of the damage
        action = rng.integers(5)
        if action == 0:
            del result[place : place + int(rng.integers(1, 4))]
        elif action == 1:
            result[place:place] = rng.bytes(int(rng.integers(1, 4)))
        else:
            result[place] = rng.integers(256)
        if not result:
            break
    return bytes(result)


def test_mutated_files_are_refused_or_read_as_exactly_what_they_hold(idx_bytes, tmp_path):
    small = np.array([[1, 2, 3], [4, 5, 6]], "i2")
    outcomes = set()
    for seed in range(400):
        content = mutated(idx_bytes(small), seed)
        try:
            result = idx.read_idx(write(tmp_path, content))
        except DataFormatError:
            outcomes.add("refused")
        else:
            assert idx_bytes(result) == content
            outcomes.add("read")
    assert outcomes == {"refused", "read"}


def test_mutated_gzip_files_are_refused_or_hold_the_original(idx_bytes, tmp_path):
    zipped = gzip.compress(idx_bytes(SMALL), mtime=0)
    for seed in range(400):
        content = mutated(zipped, seed)
        try:
            result = idx.read_idx(write(tmp_path, content))
        except DataFormatError:
            continue
        # only the time stamp and such fields may differ; a file damaged in its gzip mark is no IDX
        assert np.array_equal(result, SMALL)


def test_every_flipped_bit_of_a_gzip_file_is_detected_or_harmless(idx_bytes, tmp_path):
    zipped = gzip.compress(idx_bytes(SMALL), mtime=0)
    for bit in range(8 * len(zipped)):
        content = bytearray(zipped)
        content[bit // 8] ^= 1 << bit % 8
        try:
            result = idx.read_idx(write(tmp_path, content))
        except DataFormatError:
            continue
        assert bit // 8 < len(zipped) - 8, "length and checksum"
        assert np.array_equal(result, SMALL)


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=60), start=st.sampled_from([b"", b"\0\0\x08", b"\x1f\x8b\x08\0"]))
def test_arbitrary_bytes(content, start, idx_bytes, folder):
    content = start + content
    try:
        result = idx.read_idx(write(folder, content))
    except DataFormatError:
        return
    assert idx_bytes(result) == content


def peak_bytes(path, **limits):
    tracemalloc.start()
    try:
        with pytest.raises(DataFormatError):
            idx.read_idx(path, **limits)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("lengths", [(2**32 - 1,) * 8, (2**29, 1), (2**20, 2**9)])
@pytest.mark.parametrize("zipped", [False, True])
def test_declared_sizes_are_checked_before_memory_is_allocated(lengths, zipped, tmp_path):
    content = bytes([0, 0, 8, len(lengths)]) + struct.pack(f">{len(lengths)}I", *lengths) + b"12"
    path = write(tmp_path, gzip.compress(content) if zipped else content)
    assert peak_bytes(path) < 1 << 20


def test_gzip_bomb_is_not_unpacked_beyond_the_declared_size(tmp_path):
    declared = bytes([0, 0, 8, 1]) + struct.pack(">I", 16)
    path = write(tmp_path, gzip.compress(declared + bytes(50_000_000)))
    assert path.stat().st_size < 100_000
    assert peak_bytes(path) < 4 << 20


@pytest.mark.parametrize("zipped", [False, True])
def test_limit_holds_for_the_array_and_for_the_file(zipped, idx_bytes, tmp_path):
    content = idx_bytes(np.zeros(1000, "u1"))
    path = write(tmp_path, gzip.compress(content) if zipped else content)
    assert idx.read_idx(path, max_bytes=1008).size == 1000
    with pytest.raises(DataFormatError, match="at most 1007"):
        idx.read_idx(path, max_bytes=1007)
    with pytest.raises(DataFormatError, match="is too large at byte 0"):
        idx.read_idx(path, max_bytes=path.stat().st_size - 1)


@pytest.mark.parametrize("limit", [0, -1, True, 1e6, float("nan")])
def test_limit_is_a_whole_number(limit, tmp_path):
    with pytest.raises(UsageError, match="max_bytes"):
        idx.read_idx(tmp_path / "any", max_bytes=limit)


def test_what_is_no_regular_file_is_refused(tmp_path):
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "nul\0name", tmp_path / "pipe"):
        with pytest.raises(DataFormatError, match="cannot be read"):
            idx.read_idx(path)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_load_gives_scaled_images_and_labels(suffix, quadruple, tiny_mnist, tmp_path):
    (train_images, train_labels), (test_images, test_labels) = tiny_mnist
    data = idx.load(quadruple(tmp_path, *tiny_mnist, suffix=suffix), "mnist")
    assert (data.name, data.classes, data.sample_shape) == ("mnist", 10, (1, 28, 28))
    assert data.train_x.dtype == np.float32
    assert np.array_equal(data.train_x[:, 0], train_images.astype(np.float32) / np.float32(255))
    assert np.array_equal(np.round(data.test_x[:, 0] * 255), test_images)
    assert np.array_equal(data.train_y, train_labels)
    assert np.array_equal(data.test_y, test_labels)


def test_load_refuses_inconsistent_files(quadruple, tiny_mnist, tmp_path):
    (images, labels), test = tiny_mnist
    ten = np.where(np.arange(5) == 2, 10, labels).astype("u1")
    cases = [
        ((images, ten), test, "bad label at byte 10: got 10"),
        ((images[:4], labels), test, "another number of images at byte 4: got 4, expected 5"),
        ((images[:, :27], labels), test, r"holds no images at byte 2: got uint8 \(5, 27, 28\)"),
        ((images.astype("i2"), labels), test, "holds no images"),
        ((images, labels.astype("i1")), test, "holds no labels"),
        ((images, labels[:, np.newaxis]), test, "holds no labels"),
        ((images, labels), (test[0], test[1][:2]), "another number of images"),
    ]
    for train, held_out, words in cases:
        with pytest.raises(DataFormatError, match=words):
            idx.load(quadruple(tmp_path, train, held_out), "mnist")


@pytest.mark.parametrize("stem", idx.STEMS)
def test_load_names_the_missing_file(stem, quadruple, tiny_mnist, tmp_path):
    (quadruple(tmp_path, *tiny_mnist) / stem).unlink()
    with pytest.raises(DataFormatError, match=f"'{stem}.gz' is missing"):
        idx.load(tmp_path, "mnist")


def test_files_of_another_known_data_set_are_refused(monkeypatch, quadruple, tiny_mnist, tmp_path):
    digest = hashlib.sha256(tiny_mnist[0][1].tobytes()).hexdigest()
    monkeypatch.setitem(idx.TRAIN_LABELS, "mnist", digest)
    quadruple(tmp_path, *tiny_mnist)
    assert idx.load(tmp_path, "mnist").n_train == 5
    with pytest.raises(DataFormatError, match="got the labels of mnist, expected those of fashion"):
        idx.load(tmp_path, "fashion-mnist")
