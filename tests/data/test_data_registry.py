"""Data sets by name: where files are looked for and what the errors say."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minisparse.data as data_package
from minisparse.data import available, idx, load, registry, synthetic
from minisparse.errors import DataFormatError, UnknownNameError, UsageError
from minisparse.rng import generator

GENERATED = ["digits", "moons", "spirals", "patches", "teacher", "label-tree"]
FROM_FILES = ["mnist", "fashion-mnist", "cifar-10"]


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch):
    monkeypatch.delenv("MINISPARSE_DATA", raising=False)


def test_names_and_descriptions():
    listed = available()
    assert sorted(listed) == sorted(GENERATED + FROM_FILES)
    assert all(text and "\n" not in text for text in listed.values())


@pytest.mark.parametrize("name", GENERATED)
def test_generated_sets_need_no_files_and_carry_their_name(name):
    data = load(name)
    assert data.name == name
    assert np.array_equal(data.train_x, load(name, seed=0).train_x)


@pytest.mark.parametrize("name", ["moons", "spirals", "patches", "teacher", "label-tree"])
def test_seed_changes_synthetic_sets(name):
    assert not np.array_equal(load(name, seed=1).train_x, load(name, seed=2).train_x)


def test_seed_does_not_change_digits():
    assert np.array_equal(load("digits", seed=1).test_x, load("digits", seed=2).test_x)


def test_synthetic_sets_can_be_rebuilt_with_their_answer():
    known = synthetic.teacher(generator(7, "data teacher"))
    assert np.array_equal(known.dataset.train_x, load("teacher", seed=7).train_x)


@pytest.mark.parametrize("seed", [-1, 1.0, True])
def test_seed_is_a_whole_number(seed):
    with pytest.raises(UsageError, match="seed"):
        load("moons", seed=seed)


def test_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="unknown data set 'mnits'.*Did you mean 'mnist'"):
        load("mnits")


@pytest.mark.parametrize("name", FROM_FILES)
def test_missing_files_are_listed_with_the_command_to_get_them(name, tmp_path):
    with pytest.raises(DataFormatError) as caught:
        load(name, tmp_path)
    text = str(caught.value)
    assert "t10k-labels-idx1-ubyte" in text or "cifar-10-binary.tar.gz" in text
    assert repr(str(tmp_path / name)) in text and repr(str(tmp_path)) in text
    assert f"minisparse data get {name}" in text and "\n" not in text


def test_without_any_folder_the_error_names_option_and_variable():
    with pytest.raises(DataFormatError, match="--data-dir or set MINISPARSE_DATA"):
        load("mnist")


def test_folder_of_the_name_comes_before_the_folder_itself(quadruple, tiny_mnist, tmp_path):
    train, test = tiny_mnist
    quadruple(tmp_path, train, test)
    assert load("mnist", tmp_path).n_train == 5
    quadruple(tmp_path / "mnist", test, train, suffix=".gz")
    assert load("mnist", tmp_path).n_train == 3
    assert load("mnist", str(tmp_path)).n_train == 3


def test_folder_comes_from_the_environment_unless_given(monkeypatch, quadruple, tiny_mnist, tmp_path):
    train, test = tiny_mnist
    quadruple(tmp_path / "env" / "fashion-mnist", train, test)
    quadruple(tmp_path / "given" / "fashion-mnist", test, train)
    monkeypatch.setenv("MINISPARSE_DATA", str(tmp_path / "env"))
    assert load("fashion-mnist").n_train == 5
    assert load("fashion-mnist", tmp_path / "given").n_train == 3


def test_incomplete_folder_is_an_error_and_not_skipped(quadruple, tiny_mnist, tmp_path):
    quadruple(tmp_path, *tiny_mnist)
    (quadruple(tmp_path / "mnist", *tiny_mnist) / idx.STEMS[3]).unlink()
    with pytest.raises(DataFormatError, match=f"'{idx.STEMS[3]}.gz' is missing"):
        load("mnist", tmp_path)


def test_find_gives_the_folder_that_load_reads(quadruple, tiny_mnist, tmp_path):
    quadruple(tmp_path / "mnist", *tiny_mnist)
    assert registry.find("mnist", tmp_path) == tmp_path / "mnist"


def test_import_is_cheap():
    code = (
        "import sys, minisparse.data; "
        "heavy = {'pooch', 'requests', 'scipy', 'numba', 'matplotlib', 'rich', 'safetensors'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_exist():
    assert all(hasattr(data_package, name) for name in data_package.__all__)
