"""Data sets by name, and where their files are looked for."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from minisparse.data import cifar, digits, idx, synthetic
from minisparse.data.arguments import whole_number
from minisparse.data.dataset import Dataset
from minisparse.errors import DataFormatError, check_name
from minisparse.rng import generator

VARIABLE = "MINISPARSE_DATA"
Folder = str | os.PathLike[str]


@dataclass(frozen=True)
class Files:
    """A data set read from a folder: what it is, and which files should be there.

    ``files`` returns those that ``read`` would read, ``present`` whether there are any at all.
    """

    description: str
    read: Callable[[Path], Dataset]
    files: Callable[[Path], tuple[Path, ...]]
    present: Callable[[Path], bool]
    expected: str


@dataclass(frozen=True)
class Generated:
    """A data set that needs no files: what it is, and how to make it for a seed."""

    description: str
    make: Callable[[int], Dataset]


def _synthetic(name: str, make: Callable[..., synthetic.Known]) -> Callable[[int], Dataset]:
    return lambda seed: make(generator(seed, f"data {name}")).dataset


def _idx(name: str) -> Callable[[Path], Dataset]:
    return lambda folder: idx.load(folder, name)


IDX_FILES = ", ".join(f"{stem}[.gz]" for stem in idx.STEMS)
FILES: Mapping[str, Files] = {
    "mnist": Files(
        "MNIST: 70,000 handwritten digits, 1x28x28, 10 classes",
        _idx("mnist"),
        idx.files,
        idx.present,
        IDX_FILES,
    ),
    "fashion-mnist": Files(
        "Fashion-MNIST: 70,000 pictures of clothes, 1x28x28, 10 classes",
        _idx("fashion-mnist"),
        idx.files,
        idx.present,
        IDX_FILES,
    ),
    "cifar-10": Files(
        "CIFAR-10: 60,000 colour photographs, 3x32x32, 10 classes",
        cifar.load,
        cifar.files,
        cifar.present,
        f"{cifar.ARCHIVE} or {', '.join(cifar.FILES)}",
    ),
}
GENERATED: Mapping[str, Generated] = {
    "digits": Generated(
        "UCI digits: 1,797 handwritten digits, 1x8x8, 10 classes, in the package (default)",
        lambda seed: digits.load(),
    ),
    "moons": Generated(
        "moons: two half circles in the plane, 2 classes", _synthetic("moons", synthetic.moons)
    ),
    "spirals": Generated(
        "spirals: three arms in the plane, 3 classes", _synthetic("spirals", synthetic.spirals)
    ),
    "patches": Generated(
        "patches: one of four 3x3 patterns in noise, 1x12x12, 4 classes",
        _synthetic("patches", synthetic.patches),
    ),
    "teacher": Generated(
        "teacher: 32 inputs labelled by a sparse 32-16-4 ReLU network, 4 classes",
        _synthetic("teacher", synthetic.teacher),
    ),
    "label-tree": Generated(
        "label-tree: 2,000 classes that are the leaves of a tree, 8 samples each, 64 inputs",
        _synthetic("label-tree", synthetic.label_tree),
    ),
}


def available() -> dict[str, str]:
    """Names of all data sets with a one-line description each."""
    sources: list[Mapping[str, Files] | Mapping[str, Generated]] = [GENERATED, FILES]
    return {name: source.description for group in sources for name, source in group.items()}


def load(name: str, data_dir: Folder | None = None, seed: int = 0) -> Dataset:
    """The data set called ``name``.

    Files are looked for in ``<data_dir>/<name>`` and then in ``data_dir`` itself, which defaults to
    the environment variable MINISPARSE_DATA. ``seed`` draws the synthetic data sets and changes no
    other. Raises UnknownNameError for the name, DataFormatError for missing or damaged files.
    """
    whole_number("seed", seed, 0)
    check_name("data set", name, available())
    if name in GENERATED:
        return GENERATED[name].make(seed)
    return FILES[name].read(find(name, data_dir))


def find(name: str, data_dir: Folder | None = None) -> Path:
    """The folder that holds files of ``name``; DataFormatError, with what to do, if there is none."""
    source = FILES[name]
    root = data_folder(data_dir)
    places = [] if root is None else [root / name, root]
    for place in places:
        if source.present(place):
            return place
    searched = " or ".join(repr(str(place)) for place in places) or "no data folder"
    setting = "" if places else f"Give --data-dir or set {VARIABLE}, then run: "
    raise DataFormatError(
        f"data set {name!r} not found: got {searched} without its files, "
        f"expected {source.expected}. {setting or 'Run: '}minisparse data get {name}"
    )


def data_folder(data_dir: Folder | None) -> Path | None:
    """``data_dir``, else the folder named by MINISPARSE_DATA, else None."""
    chosen = data_dir if data_dir is not None else os.environ.get(VARIABLE)
    return Path(chosen) if chosen else None
