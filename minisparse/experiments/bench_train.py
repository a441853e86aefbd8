"""One training step: median and quartiles in ms, beside reference figures and PyTorch if present.

First dense steps; then truly sparse ones, which `bench_sparse_training` measures.

A step is forward, loss, backward and the SGD update with momentum, on random data, float32, after a
warm-up. `reference` is a framework's eager CPU step on the machine the targets were set on, so its
ratio means something on a like machine only; `torch` is measured here and now, when that package can
be imported, in a process of its own: two OpenMP runtimes in one process disturb each other. The
networks are the same but for the arrangement of memory; ratios are our time over theirs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import quantiles
from typing import Any

import numpy as np

from minisparse.experiments import bench_sparse_training
from minisparse.experiments.bench_timing import pinned
from minisparse.nn.loss import CrossEntropy
from minisparse.nn.mode import Mode
from minisparse.nn.models import make
from minisparse.nn.network import Network
from minisparse.nn.optim import SGD
from minisparse.nn.threads import Threads
from minisparse.rng import generator

CLASSES = 10
WARM_UP = 3
LR = 0.01
MOMENTUM = 0.9
TIMEOUT = 600


@dataclass(frozen=True)
class Case:
    """One row: a model, the shape of its batch, timed steps, and reference ms by threads."""

    model: str
    shape: tuple[int, ...]
    steps: int
    reference: dict[int, float]

    def count(self, quick: bool) -> int:
        """Timed steps; a tenth of them, but three at least, when quick."""
        return max(3, self.steps // 10) if quick else self.steps


CASES = (
    Case("lenet-300-100", (100, 784), 1000, {1: 1.39, 2: 1.12}),
    Case("lenet-5", (128, 1, 28, 28), 200, {1: 11.2, 2: 6.6}),
    Case("resnet-20", (128, 3, 32, 32), 15, {1: 420.0, 2: 230.0}),
)


def records(threads: tuple[int, ...], quick: bool = False) -> list[dict[str, Any]]:
    """Rows of dense steps, then those of `bench_sparse_training`."""
    return [*dense_records(threads, quick), *bench_sparse_training.records(threads, quick)]


def dense_records(threads: tuple[int, ...], quick: bool = False) -> list[dict[str, Any]]:
    """One dict per model and number of threads; times in ms, None where there is no figure."""
    rows = []
    for count in threads:
        torch = torch_times(count, quick)
        for case in CASES:
            row = measure(case, count, quick)
            reference, other = case.reference.get(count), torch.get(case.model)
            row["reference_ms"], row["ours/reference"] = reference, ratio(row["median_ms"], reference)
            row["torch_ms"], row["ours/torch"] = other, ratio(row["median_ms"], other)
            rows.append(row)
    return rows


def measure(case: Case, threads: int, quick: bool = False) -> dict[str, Any]:
    """Model, batch, threads, timed steps, and the quartiles of our step in ms."""
    network = make(case.model, case.shape[1:], CLASSES)
    with pinned(threads), Threads(network, case.shape[0]):
        times = timed(step(case, network), case.count(quick))
    low, median, high = quartiles(times)
    return {
        "model": case.model, "batch": case.shape[0], "threads": threads, "steps": len(times),
        "median_ms": median, "q25_ms": low, "q75_ms": high,
    }  # fmt: skip


def step(case: Case, network: Network) -> Callable[[], None]:
    """A function that makes one training step of the network, the case's, on one random batch."""
    rng = generator(0, "bench train")
    x = rng.standard_normal(case.shape).astype(np.float32)
    target = rng.integers(0, CLASSES, case.shape[0])
    loss, optimizer, mode = CrossEntropy(), SGD(MOMENTUM), Mode(training=True)

    def one() -> None:
        loss.value(network.forward(x, mode), target)
        network.backward(loss.grad(), need_dx=False)
        optimizer.step(network, LR)

    return one


def timed(work: Callable[[], None], count: int) -> list[float]:
    """Seconds of each of `count` calls, after a warm-up that is not counted."""
    times = []
    for _ in range(WARM_UP + count):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times[WARM_UP:]


def quartiles(seconds: list[float]) -> tuple[float, float, float]:
    """25 %, 50 % and 75 % quantiles, in ms."""
    low, median, high = quantiles(seconds, n=4, method="inclusive")
    return 1e3 * low, 1e3 * median, 1e3 * high


def ratio(ours: float, theirs: float | None) -> float | None:
    """ours / theirs, or None without theirs."""
    return None if theirs is None else ours / theirs


def torch_times(threads: int, quick: bool = False) -> dict[str, float]:
    """Median ms of PyTorch's step per model, measured in another process; empty if it is not installed."""
    if find_spec("torch") is None:
        return {}
    job = {
        "threads": threads, "warm_up": WARM_UP, "classes": CLASSES, "lr": LR, "momentum": MOMENTUM,
        "cases": [[case.model, case.shape, case.count(quick)] for case in CASES],
    }  # fmt: skip
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    try:
        done = subprocess.run(
            [sys.executable, "-c", TORCH_STEP], input=json.dumps(job), env=os.environ | limits,
            capture_output=True, text=True, timeout=TIMEOUT * len(CASES), check=True,
        )  # fmt: skip
        return json.loads(done.stdout)
    except (subprocess.SubprocessError, OSError, ValueError):
        return {}  # installed but not working: the same as not installed


# The same three networks in PyTorch's own words; a job as JSON on stdin, {model: median ms} on stdout.
TORCH_STEP = """
import json, statistics, sys, time
import torch
from torch import nn
from torch.nn import functional as F

class Block(nn.Module):
    def __init__(self, inputs, out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(out), nn.BatchNorm2d(out)
        self.stride, self.more = stride, out - inputs

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1 or self.more:
            before = self.more // 2
            x = F.pad(x[:, :, ::self.stride, ::self.stride], (0, 0, 0, 0, before, self.more - before))
        return F.relu(y + x)

def lenet_300_100(classes):
    return nn.Sequential(
        nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, classes))

def lenet_5(classes):
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, classes))

def resnet_20(classes):
    layers, width = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()], 16
    for out in (16, 32, 64):
        for block in range(3):
            layers.append(Block(width, out, 2 if out > 16 and block == 0 else 1))
            width = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))

models = {"lenet-300-100": lenet_300_100, "lenet-5": lenet_5, "resnet-20": resnet_20}
job = json.load(sys.stdin)
torch.set_num_threads(job["threads"])
torch.manual_seed(0)
found = {}
for name, shape, count in job["cases"]:
    network = models[name](job["classes"])
    x, target = torch.randn(*shape), torch.randint(0, job["classes"], (shape[0],))
    optimizer = torch.optim.SGD(network.parameters(), lr=job["lr"], momentum=job["momentum"])
    times = []
    for _ in range(job["warm_up"] + count):
        start = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(network(x), target).backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    found[name] = 1e3 * statistics.median(times[job["warm_up"]:])
print(json.dumps(found))
"""
