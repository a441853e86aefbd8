"""scikit-learn estimators of sparse perceptrons; they need the extra `sklearn`.

Any method of `minisparse list methods` trains them. Features are standardised inside, and so are the targets
of a regression, since learning rates are meant for inputs and errors of size 1.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import ceil
from numbers import Real
from typing import Any

import numpy as np

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        f"minisparse.sklearn cannot be imported: got '{error}', expected scikit-learn >= 1.6. "
        "Run: pip install 'minisparse[sklearn]'"
    ) from None

from minisparse.data.batches import steps_per_epoch
from minisparse.data.dataset import Dataset
from minisparse.errors import NonFiniteError, UsageError
from minisparse.experiments.settings import build_method, fields_of, parse_optimizer, parse_rate, write
from minisparse.methods.base import Method
from minisparse.methods.registry import find
from minisparse.nn.models import build
from minisparse.nn.param import Array
from minisparse.training.run import Run, train

EPOCHS, STEPS = 30, 500  # the least of each, where the number of epochs is left open
TINY = 10 * np.finfo(np.float64).eps

__all__ = ["SparseMLPClassifier", "SparseMLPRegressor"]


class SparseMLP(BaseEstimator):
    """What classifier and regressor share; use one of them.

    hidden_layer_sizes   widths of the hidden layers
    method, sparsity     how it becomes sparse, and how sparse; a method without a sparsity (dense) ignores it
    method_settings      the method's other settings by name, as values or text
    activation           see `minisparse.nn.models.activations`
    epochs               passes over the data; None: 30, and more on small data for at least 500 steps
    batch_size           samples of a step
    optimizer            as in `minisparse run --optimizer`
    learning_rate        the largest one, falling by a cosine; or text as in `minisparse run --rate`
    init, storage        as in `minisparse run`
    validation_fraction  share of the samples that is held out and evaluated after each epoch; 0 for none
    random_state         as everywhere in scikit-learn

    Fitted: network_ (a `minisparse.nn.network.Network`, float64), sparsity_ obtained, history_ (a dict per
    epoch: step, loss, sparsity, lr and, with validation, test_loss and accuracy), n_features_in_, and
    feature_names_in_ if the features had names.
    """

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (100,),
        *,
        method: str = "rigl",
        sparsity: float = 0.9,
        method_settings: Mapping[str, Any] | None = None,
        activation: str = "relu",
        epochs: int | None = None,
        batch_size: int = 64,
        optimizer: str = "sgd:momentum=0.9",
        learning_rate: float | str = 0.05,
        init: str = "kaiming-normal",
        storage: str | None = None,
        validation_fraction: float = 0.0,
        random_state: Any = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.method = method
        self.sparsity = sparsity
        self.method_settings = method_settings
        self.activation = activation
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.init = init
        self.storage = storage
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def _fit(self, x: Array, y: Array, classes: int | None) -> None:
        """x (n, i) float64; y labels (n,), or targets (n, o) of size 1."""
        self._center, self._scale = moments(x)
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        data = self._dataset(self._standard(x), y, classes, seed)
        run = self._train(data, seed)
        if run.status == "diverged":
            raise NonFiniteError(f"{type(self).__name__}: {run.note}")
        if run.status == "collapsed":
            warnings.warn(f"{run.note}. Lower the sparsity.", ConvergenceWarning, stacklevel=3)
        self.network_ = run.network.astype(np.float64)
        self.sparsity_ = run.sparsity
        seen = {"step", "loss", "sparsity", "lr"} | ({"test_loss", "accuracy"} if self._held_out else set())
        self.history_ = [{k: v for k, v in asdict(r).items() if k in seen} for r in run.history]

    @property
    def _held_out(self) -> bool:
        return self.validation_fraction != 0

    def _dataset(self, x: Array, y: Array, classes: int | None, seed: int) -> Dataset:
        """The samples in float32, some of them held out; without validation one stands in as test set."""
        share = self.validation_fraction
        if isinstance(share, bool) or not isinstance(share, Real) or not 0 <= share < 1:
            raise UsageError(f"validation_fraction: got {share!r}, expected 0 <= share < 1.")
        x = x.astype(np.float32)
        y = y.astype(np.float32) if classes is None else y
        parts = (x, x[:1], y, y[:1])
        if self._held_out:
            by_class = None if classes is None else y
            parts = tuple(train_test_split(x, y, test_size=share, random_state=seed, stratify=by_class))
        return Dataset("fit", parts[0], parts[2], parts[1], parts[3], classes)

    def _train(self, data: Dataset, seed: int) -> Run:
        widths = self.hidden_layer_sizes
        hidden = [widths] if isinstance(widths, int | np.integer) else list(widths)
        sizes = "-".join(map(str, [*data.sample_shape, *hidden, data.outputs]))
        network = build(f"mlp:{sizes}:{self.activation}", data, seed, self.init)
        rate = self.learning_rate
        per_epoch = steps_per_epoch(data.n_train, self.batch_size)
        with np.errstate(over="ignore", invalid="ignore"):  # training looks at all numbers itself
            return train(
                network,
                data,
                self._method(),
                epochs=max(EPOCHS, ceil(STEPS / per_epoch)) if self.epochs is None else self.epochs,
                batch=self.batch_size,
                optimizer=parse_optimizer(self.optimizer),
                rate=parse_rate(rate if isinstance(rate, str) else f"cosine:lr={write(rate)}"),
                seed=seed,
                storage=self.storage,
            )

    def _method(self) -> Method:
        known = {setting.name for setting in fields_of(find(self.method).cls)}
        settings = {"sparsity": self.sparsity} if "sparsity" in known else {}
        return build_method(self.method, settings | dict(self.method_settings or {}))

    def _standard(self, x: Array) -> Array:
        return (x - self._center) / self._scale

    def _outputs(self, x: Any) -> Array:
        """Outputs (n, o) of the network, float64."""
        check_is_fitted(self)
        checked = validate_data(self, x, dtype=np.float64, reset=False)
        return self.network_.predict(self._standard(checked))


class SparseMLPClassifier(ClassifierMixin, SparseMLP):
    """A sparse perceptron for classes, trained on cross-entropy. classes_ are its labels.

    Parameters and attributes are those of `SparseMLP`.
    """

    def fit(self, X: Any, y: Any) -> SparseMLPClassifier:
        """X (n, i) numbers, y (n,) labels of any kind, of at least two classes.

        ValueError for other data, UsageError for unusable parameters, NonFiniteError if training diverges;
        ConvergenceWarning if no path of weights is left from inputs to outputs.
        """
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"{type(self).__name__}: got 1 class, expected at least 2.")
        self._fit(X, labels.astype(np.int64), len(self.classes_))
        return self

    def predict_proba(self, X: Any) -> Array:
        """(n, classes) probabilities, in the order of classes_."""
        z = self._outputs(X)
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> Array:
        """(n,) most probable labels."""
        outputs = self._outputs(X)
        return self.classes_[outputs.argmax(axis=1)]


class SparseMLPRegressor(RegressorMixin, SparseMLP):
    """A sparse perceptron for one target or several, trained on the squared error.

    Parameters and attributes are those of `SparseMLP`.
    """

    def fit(self, X: Any, y: Any) -> SparseMLPRegressor:
        """X (n, i), y (n,) or (n, o) numbers, of at least two samples. Errors as of the classifier."""
        X, y = validate_data(
            self, X, y, dtype=np.float64, multi_output=True, y_numeric=True, ensure_min_samples=2
        )
        targets = y.reshape(len(y), -1).astype(np.float64)
        self._single = y.ndim == 1
        self._target_center, self._target_scale = moments(targets)
        self._fit(X, (targets - self._target_center) / self._target_scale, None)
        return self

    def predict(self, X: Any) -> Array:
        """(n,) or (n, o) values, as the targets of `fit` were."""
        y = self._outputs(X) * self._target_scale + self._target_center
        return y[:, 0] if self._single else y

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def moments(x: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of each column; 1 instead of the deviation of a constant one."""
    center, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale <= TINY * np.abs(center)] = 1
    return center, scale
