"""minisparse: sparse neural networks from scratch in NumPy, SciPy and Numba.

The names below are loaded on first use, so that ``import minisparse`` and ``minisparse --help`` cost
neither SciPy nor Numba.
"""

import os
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Idle threads of OpenBLAS spin for 2^28 cycles by default, a tenth of a second in which they keep the kernels
# from a processor; this makes it half a millisecond. It is read when NumPy is loaded, so it helps those who
# import this package first.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")

_PACKAGES = (
    "curvature",
    "data",
    "errors",
    "exchange",
    "experiments",
    "kernels",
    "methods",
    "nn",
    "sparsity",
    "testing",
)
_MODULES = {name: f"minisparse.{name}" for name in _PACKAGES} | {
    "models": "minisparse.nn.models",
    "sklearn": "minisparse.sklearn",
}
_NAMES = {
    "train": ("minisparse.training.run", "train"),
    "Method": ("minisparse.methods.base", "Method"),
    "Run": ("minisparse.training.run", "Run"),
    "compress": ("minisparse.weights.compress", "compress"),
    "groups_of": ("minisparse.sparsity.groups", "groups_of"),
    "remove_dead": ("minisparse.sparsity.surgery", "remove_dead"),
    "shrink": ("minisparse.sparsity.surgery", "shrink"),
    "build_sparse": ("minisparse.training.born", "build_sparse"),
    "catalogue": ("minisparse.methods.registry", "catalogue"),
}


def __getattr__(name: str) -> Any:
    """Sub-packages, the few top-level functions, and every method class under its paper's name."""
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name in _NAMES:
        module, attribute = _NAMES[name]
        return getattr(import_module(module), attribute)
    if not name.startswith("_"):
        classes = import_module("minisparse.methods.registry").classes()
        if name in classes:
            return classes[name]
    raise AttributeError(f"module 'minisparse' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_MODULES, *_NAMES, "__version__"])
