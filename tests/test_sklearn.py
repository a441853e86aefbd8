"""The estimators keep scikit-learn's rules, and learn."""

import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits, make_blobs, make_regression
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from minisparse.errors import NonFiniteError, SparsityError, UnknownNameError, UsageError
from minisparse.sklearn import SparseMLPClassifier, SparseMLPRegressor, moments
from minisparse.weights.csr import CSRWeight

FEW: dict[str, Any] = {"hidden_layer_sizes": (40,), "sparsity": 0.8, "epochs": 30, "batch_size": 32}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([SparseMLPClassifier(**FEW), SparseMLPRegressor(**FEW)])
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def digits() -> Any:
    x, y = load_digits(return_X_y=True)
    return x[:1200], y[:1200], x[1200:], y[1200:]


@pytest.fixture(scope="module")
def fitted(digits: Any) -> SparseMLPClassifier:
    return SparseMLPClassifier(random_state=0).fit(*digits[:2])


def test_the_defaults_learn_digits(digits: Any, fitted: SparseMLPClassifier) -> None:
    assert fitted.score(*digits[2:]) > 0.8
    total = 64 * 100 + 100 * 10
    kept = sum(layer.weight.kept for layer in fitted.network_.prunable().values())
    assert kept == total - round(0.9 * total) and fitted.sparsity_ == pytest.approx(0.9)
    probabilities = fitted.predict_proba(digits[2])
    assert_allclose(probabilities.sum(axis=1), 1)
    assert_array_equal(fitted.classes_[probabilities.argmax(axis=1)], fitted.predict(digits[2]))


def test_the_defaults_learn_two_targets() -> None:
    x, y = make_regression(200, 8, n_targets=2, random_state=0)
    y = 1e4 * y + 1e6  # the scale of targets does not matter
    model = SparseMLPRegressor(random_state=0).fit(x[:150], y[:150])
    assert model.predict(x[150:]).shape == (50, 2)
    assert model.score(x[150:], y[150:]) > 0.9
    assert model.fit(x, y[:, 0]).predict(x).shape == (200,)
    assert model.fit(x, y[:, :1]).predict(x).shape == (200, 1)


def test_equal_seeds_give_equal_networks(digits: Any) -> None:
    model = SparseMLPClassifier(**FEW | {"epochs": 2}, learning_rate=np.float64(0.1), random_state=7)
    predictions = [clone(model).fit(*digits[:2]).predict_proba(digits[2]) for _ in range(2)]
    assert_array_equal(*predictions)
    other = clone(model).set_params(random_state=8).fit(*digits[:2]).predict_proba(digits[2])
    assert not np.array_equal(predictions[0], other)


def test_a_pickled_model_predicts_the_same(digits: Any, fitted: SparseMLPClassifier) -> None:
    again = pickle.loads(pickle.dumps(fitted))
    assert_array_equal(again.predict_proba(digits[2]), fitted.predict_proba(digits[2]))


def test_shifted_and_scaled_features_are_the_same_problem() -> None:
    x, y = make_blobs(90, 4, centers=3, random_state=0)
    scale, shift = np.array([1e-6, 1.0, 1e3, 1e6]), np.array([0.0, 1e4, -5.0, 1.0])
    model = SparseMLPClassifier(**FEW | {"epochs": 3}, random_state=0)
    plain = model.fit(x, y).predict_proba(x)
    moved = make_pipeline(FunctionTransformer(lambda x: x * scale + shift), clone(model)).fit(x, y)
    assert_allclose(moved.predict_proba(x), plain, atol=1e-3)


def test_moments_of_constant_columns() -> None:
    x = np.column_stack([np.full(7, 0.1), np.zeros(7), np.arange(7.0)])
    center, scale = moments(x)
    assert_allclose(center, [0.1, 0, 3])
    assert_allclose(scale, [1, 1, 2])
    assert np.isfinite((x - center) / scale).all()


def test_a_search_over_sparsities() -> None:
    x, y = make_blobs(120, 3, centers=3, random_state=1)
    search = GridSearchCV(
        SparseMLPClassifier(**FEW | {"epochs": 5}, random_state=0),
        {"sparsity": [0.3, 0.6], "method": ["magnitude", "dense"]},
        cv=2,
        error_score="raise",
    ).fit(x, y)
    assert search.best_score_ > 0.8
    model = clone(search.estimator)
    found = {m: model.set_params(method=m, sparsity=0.6).fit(x, y).sparsity_ for m in ("magnitude", "dense")}
    assert found["dense"] == 0  # it has no sparsity to set
    assert found["magnitude"] == pytest.approx(0.6, abs=0.01)


def test_what_is_held_out_is_evaluated(digits: Any) -> None:
    model = SparseMLPClassifier(**FEW | {"epochs": 3}, random_state=0)
    plain = model.fit(*digits[:2]).history_
    assert [set(row) for row in plain] == [{"step", "loss", "sparsity", "lr"}] * len(plain)
    history = model.set_params(validation_fraction=0.25).fit(*digits[:2]).history_
    assert [row["step"] for row in history] == [0, 29, 58, 87]  # ceil(900 / 32) steps each
    assert history[-1]["accuracy"] > history[0]["accuracy"]
    assert all(np.isfinite(row["test_loss"]) for row in history)


def test_settings_reach_the_training(digits: Any) -> None:
    model = SparseMLPClassifier(
        **FEW | {"epochs": 2, "hidden_layer_sizes": 20, "method": "rigl"}, method_settings={"every": 9},
        activation="tanh", optimizer="adam", learning_rate="constant:lr=0.001", storage="csr", random_state=0,
    ).fit(*digits[:2])  # fmt: skip
    weights = [layer.weight for layer in model.network_.prunable().values()]
    assert [w.shape for w in weights] == [(20, 64), (10, 20)]
    assert isinstance(weights[0], CSRWeight)
    assert model.predict(digits[2]).shape == (597,)
    assert SparseMLPClassifier(hidden_layer_sizes=(), epochs=1).fit(*digits[:2]).network_.outputs == 10


WRONG = [
    ({"method": "rigel"}, UnknownNameError, "Did you mean 'rigl'"),
    ({"sparsity": 90}, SparsityError, "expected 0 <= sparsity < 1"),
    ({"method_settings": {"evry": 3}}, UnknownNameError, "every"),
    ({"activation": "relo"}, UnknownNameError, "relu"),
    ({"optimizer": "sgdd"}, UnknownNameError, "sgd"),
    ({"learning_rate": -1.0}, UsageError, "learning rate: got -1.0"),
    ({"learning_rate": None}, UsageError, "'lr'"),
    ({"hidden_layer_sizes": (0,)}, UsageError, "widths"),
    ({"epochs": 0}, UsageError, "epochs"),
    ({"batch_size": 0}, UsageError, "batch"),
    ({"validation_fraction": 1.0}, UsageError, "0 <= share < 1"),
    ({"validation_fraction": True}, UsageError, "0 <= share < 1"),
    ({"storage": "crs"}, UnknownNameError, "csr"),
]


@pytest.mark.parametrize(("given", "error", "words"), WRONG)
def test_unusable_parameters(given: dict[str, Any], error: type[Exception], words: str) -> None:
    x, y = make_blobs(40, 3, random_state=0)
    with pytest.raises(error, match=words):
        SparseMLPClassifier(**FEW | given).fit(x, y)


def test_divergence_and_collapse_are_told() -> None:
    x, y = make_regression(60, 5, random_state=0)
    with pytest.raises(NonFiniteError, match="SparseMLPRegressor: training diverged"):
        SparseMLPRegressor(**FEW | {"method": "dense"}, learning_rate=1e6, random_state=0).fit(x, y)
    with pytest.warns(ConvergenceWarning, match="collapsed.*Lower the sparsity"):
        SparseMLPRegressor(**FEW | {"sparsity": 0.999}, random_state=0).fit(x, y)


def test_without_scikit_learn_one_line_says_what_to_do() -> None:
    code = "import sys; sys.modules['sklearn'] = None; import minisparse, minisparse.sklearn"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith("ImportError: minisparse.sklearn cannot be imported")
    assert "pip install 'minisparse[sklearn]'" in line


def test_the_package_does_not_load_scikit_learn() -> None:
    code = (
        "import sys, minisparse.cli.run, minisparse.experiments.compare; assert 'sklearn' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
