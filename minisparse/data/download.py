"""Fetching the public data sets, and checking the files one has.

Every file is fetched over https only, redirects included, never beyond its known size, and accepted
only when its SHA-256 is the one written here. Where the digests come from:

- MNIST and CIFAR-10: size and SHA-256 of the same address in TensorFlow Datasets (Google), folder
  url_checksums. CIFAR-10's authors publish the MD5 of the same archive,
  c32a1d4ab5d03f1284b67883e8d87530.
- Fashion-MNIST: the same list; its authors publish MD5 digests in their read-me. The authors' own
  address offers no https, so the files come from their repository at a fixed commit.

A copy of MNIST that somebody compressed anew has other digests but the same content: `load` and
`verify` read it, `get` replaces it.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urljoin, urlsplit

import pooch

from minisparse.data import cifar, idx
from minisparse.data.registry import FILES, VARIABLE, Folder, data_folder, find, load
from minisparse.errors import DataFormatError, UsageError, unknown_name

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Remote:
    """A public file: its https address, length in bytes and SHA-256."""

    url: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """The file's name, which it also gets on disk."""
        return self.url.rpartition("/")[2]


def _idx_files(base: str, *published: tuple[int, str]) -> tuple[Remote, ...]:
    files = zip(idx.STEMS, published, strict=True)
    return tuple(Remote(f"{base}/{stem}.gz", size, sha256) for stem, (size, sha256) in files)


REMOTES = {
    "mnist": _idx_files(
        "https://storage.googleapis.com/cvdf-datasets/mnist",
        (9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        (28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        (1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        (4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    ),
    "fashion-mnist": _idx_files(
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/"
        "b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion",
        (26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        (29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        (4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        (5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    ),
    "cifar-10": (
        Remote(
            f"https://www.cs.toronto.edu/~kriz/{cifar.ARCHIVE}",
            170_052_171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
    ),
}
OFFICIAL_SAMPLES = {
    "mnist": (60_000, 10_000),
    "fashion-mnist": (60_000, 10_000),
    "cifar-10": (50_000, 10_000),
}


@dataclass(frozen=True)
class CheckedFile:
    """A file that was read: where, its bytes, and whether it is exactly the published one."""

    path: Path
    size: int
    published: bool


@dataclass(frozen=True)
class Verified:
    """A data set found intact: its files (none when it needs none) and its numbers of samples."""

    name: str
    files: tuple[CheckedFile, ...]
    n_train: int
    n_test: int


def get(name: str, data_dir: Folder | None = None, progress: Progress | None = None) -> Path:
    """Fetch the files of ``name`` into ``<data_dir>/<name>`` and return that folder.

    Published files that are already there are not fetched again; other files of their names are
    replaced, each only once its successor is complete and verified. ``data_dir`` defaults to
    MINISPARSE_DATA. ``progress`` is called with a file's name, the bytes so far and its size.
    Raises UnknownNameError, UsageError without a folder, DataFormatError if a file cannot be had.
    """
    if name not in REMOTES:
        raise unknown_name("data set to fetch", name, REMOTES)
    root = data_folder(data_dir)
    if root is None:
        raise UsageError(
            f"no folder to store data set {name!r} in: got none, "
            f"expected --data-dir or the environment variable {VARIABLE}."
        )
    for remote in REMOTES[name]:
        _fetch(remote, root / name, progress)
    return root / name


def verify(name: str, data_dir: Folder | None = None) -> Verified:
    """Read the whole data set ``name`` from its files and check the official numbers of samples.

    Raises UnknownNameError for the name, DataFormatError for anything missing, damaged or of
    another size. A file that was compressed anew passes; it is reported as not ``published``.
    """
    data = load(name, data_dir)
    official = OFFICIAL_SAMPLES.get(name, (data.n_train, data.n_test))
    if (data.n_train, data.n_test) != official:
        raise DataFormatError(
            f"data set {name!r} is not the official one: got {data.n_train} training and "
            f"{data.n_test} test samples, expected {official[0]} and {official[1]}."
        )
    paths = FILES[name].files(find(name, data_dir)) if name in FILES else ()
    digests = {remote.name: remote.sha256 for remote in REMOTES.get(name, ())}
    files = [
        CheckedFile(path, path.stat().st_size, _sha256(path) == digests.get(path.name)) for path in paths
    ]
    return Verified(name, tuple(files), data.n_train, data.n_test)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(remote: Remote, folder: Path, progress: Progress | None) -> None:
    try:
        pooch.retrieve(
            remote.url,
            known_hash=f"sha256:{remote.sha256}",
            fname=remote.name,
            path=folder,
            downloader=_Downloader(remote, progress),
        )
    except (OSError, ValueError) as error:  # no connection, no space, or another digest
        reason = " ".join(str(error).split())
        raise DataFormatError(
            f"download of {remote.url} failed: got {type(error).__name__} '{reason}', expected "
            f"{remote.size} bytes of SHA-256 {remote.sha256}. "
            f"Try again, or put the file into {str(folder)!r} by hand."
        ) from error


class _Downloader:
    """pooch's https download, with a limit on its length and on where it may be redirected."""

    def __init__(self, remote: Remote, progress: Progress | None) -> None:
        self.remote = remote
        self.progress = progress

    def __call__(self, url: str, output_file: str, pooch_object: object) -> None:
        download = pooch.HTTPDownloader(chunk_size=1 << 16, hooks={"response": _refuse_plain_http})
        with open(output_file, "wb") as target:
            download(url, _Limited(target, self.remote, self.progress), pooch_object)


class _Limited:
    """The part of a file that a download needs, refusing to grow beyond the published size."""

    def __init__(self, target: BinaryIO, remote: Remote, progress: Progress | None) -> None:
        self.target = target
        self.remote = remote
        self.progress = progress
        self.written = 0

    def write(self, piece: bytes) -> None:
        self.written += len(piece)
        if self.written > self.remote.size:
            raise DataFormatError(
                f"download of {self.remote.url} is too large: got more than {self.remote.size} "
                "bytes, expected no more. The address no longer serves the published file."
            )
        self.target.write(piece)
        if self.progress is not None:
            self.progress(self.remote.name, self.written, self.remote.size)

    def flush(self) -> None:
        self.target.flush()


def _refuse_plain_http(response: Any, *args: object, **kwargs: object) -> None:
    """Called for every answer on the way, before a redirect is followed."""
    follow = urljoin(response.url, response.headers.get("location", ""))
    for address in (response.url, follow):
        if urlsplit(address).scheme != "https":
            raise DataFormatError(
                f"download refused: got the unprotected address {address!r}, expected https. "
                "Check for a proxy or login page in between."
            )
