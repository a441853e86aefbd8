"""Digests of tiny runs, printed as JSON: python -m tests.reliability.determinism [--reversed] [--late].

--reversed   in the opposite order
--late       the modules imported last to first, and another run before each
"""

from __future__ import annotations

import hashlib
import importlib
import json
import locale
import pkgutil
import sys

PARTS = ("methods", "sparsity", "weights", "nn", "curvature")
# (method, settings, other parts of the spec): deterministic, random, learned, second-order, in a format
RUNS: tuple[tuple[str, dict[str, str], dict[str, object]], ...] = (
    ("magnitude", {"sparsity": "0.8", "schedule": "cubic:begin=0.2,end=0.7", "allocation": "erk"}, {}),
    ("random", {"sparsity": "0.7"}, {"optimizer": "adam", "rate": "cosine:lr=0.01"}),
    ("rigl", {"sparsity": "0.8", "every": "2"}, {"dtype": "float64"}),
    ("set", {"sparsity": "0.8"}, {"storage": "csr"}),
    ("snip", {"sparsity": "0.9"}, {"seed": 3}),
    ("imp", {"sparsity": "0.5", "rounds": "2"}, {}),
    ("l0", {}, {}),
    ("obd", {"sparsity": "0.6"}, {}),
    ("dense", {}, {"model": "lenet-5", "batch": 180, "epochs": 1}),
)


def digest(method: str, settings: dict[str, str], parts: dict[str, object]) -> str:
    """SHA-256 of all that a run gives but its times."""
    runner = importlib.import_module("minisparse.experiments.runner")
    spec_type = importlib.import_module("minisparse.experiments.spec").RunSpec
    common: dict[str, object] = {"model": "mlp:64-12-10", "epochs": 2, "batch": 512}
    outcome = runner.execute(spec_type(method, tuple(settings.items()), **(common | parts)))
    facts = outcome.to_json()
    for name in ("seconds", "forward_seconds", "environment"):
        del facts[name]
    total = hashlib.sha256(json.dumps(facts).encode())
    for name, array in sorted(outcome.network.state().items()):
        total.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    for name, mask in sorted(outcome.network.masks().items()):
        total.update(name.encode() + mask.tobytes())
    return total.hexdigest()


def main(argv: list[str]) -> None:
    """Print {place in RUNS: digest}."""
    locale.setlocale(locale.LC_ALL, "")
    late = "--late" in argv
    if late:
        for part in PARTS:
            package = importlib.import_module(f"minisparse.{part}")
            found = [m.name for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
            for name in sorted(found, reverse=True):
                importlib.import_module(name)
    places = list(range(len(RUNS)))
    found = {}
    for k in reversed(places) if "--reversed" in argv else places:
        if late:
            digest(*RUNS[k - 1])
        found[k] = digest(*RUNS[k])
    print(json.dumps(found, sort_keys=True))


if __name__ == "__main__":
    main(sys.argv[1:])
