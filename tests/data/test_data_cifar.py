"""CIFAR-10: two routes to the same data, and archives that lie."""

import gzip
import io
import os
import tarfile

import numpy as np
import pytest

from minisparse.data import cifar
from minisparse.errors import DataFormatError, UsageError

RECORDS = 2


@pytest.fixture(scope="module")
def contents():
    """File name: bytes of two records, written by hand: a label, then the three colour planes."""
    rng = np.random.default_rng(0)
    return {
        name: b"".join(bytes([rng.integers(10)]) + rng.bytes(3072) for _ in range(RECORDS))
        for name in cifar.FILES
    }


def write_files(folder, contents):
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def tar_bytes(members):
    """An uncompressed archive of (name or TarInfo, content) pairs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def members(contents):
    extra = [(f"{cifar.FOLDER}/batches.meta.txt", b"airplane\n"), (f"{cifar.FOLDER}/x.html", b"")]
    return extra + [(f"{cifar.FOLDER}/{name}", content) for name, content in contents.items()]


def write_archive(folder, tar):
    (folder / cifar.ARCHIVE).write_bytes(gzip.compress(tar, 1, mtime=0))
    return folder


def same(a, b):
    return all(
        np.array_equal(getattr(a, field), getattr(b, field))
        for field in ("train_x", "train_y", "test_x", "test_y")
    )


def test_records_are_decoded_plane_by_plane(contents, tmp_path):
    data = cifar.load(write_files(tmp_path, contents), RECORDS)
    assert (data.n_train, data.n_test, data.sample_shape) == (10, 2, (3, 32, 32))
    assert data.train_x.dtype == np.float32
    record = contents["data_batch_4.bin"][3073:]
    assert data.train_y[7] == record[0]
    for c, h, w in [(0, 0, 0), (1, 2, 3), (2, 31, 30)]:
        value = np.float32(record[1 + 1024 * c + 32 * h + w])
        assert data.train_x[7, c, h, w] == value / np.float32(255)
    assert data.test_y[0] == contents["test_batch.bin"][0]


def test_archive_and_unpacked_files_give_the_same(contents, tmp_path):
    plain = cifar.load(write_files(tmp_path / "plain", contents), RECORDS)
    (tmp_path / "sub").mkdir()
    write_files(tmp_path / "sub" / cifar.FOLDER, contents)
    (tmp_path / "packed").mkdir()
    packed = write_archive(tmp_path / "packed", tar_bytes(reversed(members(contents))))
    assert same(plain, cifar.load(tmp_path / "sub", RECORDS))
    assert same(plain, cifar.load(packed, RECORDS))


def test_official_files_have_ten_thousand_records(contents, tmp_path):
    with pytest.raises(DataFormatError, match="expected 30730000 bytes"):
        cifar.load(write_files(tmp_path, contents))


@pytest.mark.parametrize("records", [0, True, 2.0])
def test_number_of_records_is_a_whole_number(records, tmp_path):
    with pytest.raises(UsageError, match="records per file"):
        cifar.load(tmp_path, records)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content[:-1], "too short for its records at byte 0"),
        (lambda content: content[:3073], "too short"),
        (lambda content: content + b"\0", "goes on after its end at byte 6146"),
        (lambda content: content + bytes(2 << 20), "is too large"),
        (lambda content: content[:3073] + b"\x0a" + content[3074:], "bad label .* at byte 3073: got 10"),
        (lambda content: b"", "too short"),
    ],
)
def test_bad_file_is_refused(change, words, contents, tmp_path):
    changed = contents | {"data_batch_3.bin": change(contents["data_batch_3.bin"])}
    with pytest.raises(DataFormatError, match=words) as caught:
        cifar.load(write_files(tmp_path, changed), RECORDS)
    assert "data_batch_3.bin" in str(caught.value)


def test_missing_files_are_named(contents, tmp_path):
    with pytest.raises(DataFormatError, match="cifar-10-binary.tar.gz or all of data_batch_1.bin"):
        cifar.load(tmp_path, RECORDS)
    (write_files(tmp_path, contents) / "test_batch.bin").unlink()
    with pytest.raises(DataFormatError, match="test_batch.bin"):
        cifar.load(tmp_path, RECORDS)


def test_nothing_is_written_to_disk(contents, tmp_path):
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    evil = [("../../evil.bin", b"x"), (str(tmp_path / "absolute.bin"), b"x"), ("../evil", b"x")]
    write_archive(folder, tar_bytes(evil + members(contents)))
    assert cifar.load(folder, RECORDS).n_train == 10
    files = [name for _, _, names in os.walk(tmp_path) for name in names]
    assert files == [cifar.ARCHIVE]


def special(name, kind):
    info = tarfile.TarInfo(f"{cifar.FOLDER}/{name}")
    info.type = kind
    info.linkname = "elsewhere"
    return info


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m[:-1], "got no test_batch.bin"),
        (lambda m: m + m[-1:], "repeated or special"),
        (lambda m: [*m[:-1], (m[-1][0], m[-1][1][:-1])], "wrongly .*got 6145, expected 6146 bytes"),
        (lambda m: [*m[:-1], (m[-1][0], b"\xff" + m[-1][1][1:])], "bad label in 'test_batch.bin'"),
        (lambda m: [*m[:-1], (special("test_batch.bin", tarfile.SYMTYPE), b"")], "special"),
        (lambda m: [*m[:-1], (special("test_batch.bin", tarfile.LNKTYPE), b"")], "special"),
        (lambda m: [*m[:-1], (special("test_batch.bin", tarfile.DIRTYPE), b"")], "special"),
        (lambda m: [("bomb", bytes(3 << 20)), *m], "too large"),
        (lambda m: [], "no intact archive|without all"),
        (lambda m: [(name.replace("cifar", "evil"), content) for name, content in m], "without all"),
    ],
)
def test_archive_with_wrong_members_is_refused(change, words, contents, tmp_path):
    write_archive(tmp_path, tar_bytes(change(members(contents))))
    with pytest.raises(DataFormatError, match=words):
        cifar.load(tmp_path, RECORDS)


def test_sparse_member_is_refused_even_if_it_holds_the_right_bytes(contents, tmp_path):
    """GNU's old sparse header: one run of data at byte 386, the real size at byte 483."""
    *others, (name, content) = members(contents)
    info = tarfile.TarInfo(name)
    info.type, info.size = tarfile.GNUTYPE_SPARSE, len(content)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (0, len(content))
    header[483:495] = b"%011o\0" % len(content)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    member = bytes(header) + content + bytes(-len(content) % 512)
    write_archive(tmp_path, member + tar_bytes(others))
    with pytest.raises(DataFormatError, match="repeated or special"):
        cifar.load(tmp_path, RECORDS)


@pytest.mark.parametrize("size", [8 << 30, 1 << 62, -1024])
@pytest.mark.parametrize(
    "kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.GNUTYPE_SPARSE]
)
def test_header_that_claims_an_absurd_size_is_refused_at_once(kind, size, contents, tmp_path):
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, size
    write_archive(tmp_path, info.tobuf(tarfile.GNU_FORMAT) + tar_bytes(members(contents)))
    with pytest.raises(DataFormatError):
        cifar.load(tmp_path, RECORDS)


def damaged(content, rng, places):
    result = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        result[int(rng.integers(places))] = rng.integers(256)
    return bytes(result[: rng.integers(len(result))] if rng.random() < 0.1 else result)


def test_damaged_archives_are_refused_or_read(contents, tmp_path):
    """Damage before compression reaches the tar headers, which are the first 512 bytes of a member."""
    tar = tar_bytes(members(contents)[2:])
    headers = [k for k in range(0, len(tar), 512) if tar[k + 257 : k + 262] == b"ustar"]
    assert len(headers) == 6
    outcomes = {"refused": 0, "read": 0}
    for seed in range(300):
        rng = np.random.default_rng(seed)
        start = headers[int(rng.integers(6))]
        content = tar[:start] + damaged(tar[start:], rng, 400)
        write_archive(tmp_path, content)
        try:
            data = cifar.load(tmp_path, RECORDS)
        except DataFormatError:
            outcomes["refused"] += 1
        else:
            assert (data.n_train, data.n_test) == (10, 2)
            outcomes["read"] += 1
    assert outcomes["refused"] > 100


def test_damaged_gzip_streams_are_refused_or_hold_the_original(contents, tmp_path):
    reference = cifar.load(write_files(tmp_path / "plain", contents), RECORDS)
    zipped = gzip.compress(tar_bytes(members(contents)), 1, mtime=0)
    for seed in range(300):
        rng = np.random.default_rng(seed)
        (tmp_path / cifar.ARCHIVE).write_bytes(damaged(zipped, rng, len(zipped)))
        try:
            data = cifar.load(tmp_path, RECORDS)
        except DataFormatError:
            continue
        assert same(data, reference)


def test_flipped_bit_in_the_checksum_is_detected(contents, tmp_path):
    zipped = bytearray(gzip.compress(tar_bytes(members(contents)), 1, mtime=0))
    zipped[-6] ^= 1
    (tmp_path / cifar.ARCHIVE).write_bytes(zipped)
    with pytest.raises(DataFormatError, match="CRC"):
        cifar.load(tmp_path, RECORDS)


def test_damaged_plain_files_are_refused_or_read(contents, tmp_path):
    write_files(tmp_path, contents)
    for seed in range(300):
        rng = np.random.default_rng(seed)
        name = cifar.FILES[int(rng.integers(6))]
        content = damaged(contents[name], rng, 4 if seed % 2 else len(contents[name]))
        write_files(tmp_path, {name: content})
        valid = len(content) == RECORDS * 3073 and content[0] < 10 and content[3073] < 10
        if valid:
            assert cifar.load(tmp_path, RECORDS).n_test == 2
        else:
            with pytest.raises(DataFormatError):
                cifar.load(tmp_path, RECORDS)
        write_files(tmp_path, {name: contents[name]})
