"""Networks small enough to print, three clusters to train them on, and settings for a dozen steps.

    perceptron   4-4-3, ReLU: matrices 4x4 and 3x4, 28 prunable weights
    normalised   the same with BatchNorm before the ReLU
    convolution  3 filters of 2x2 on a 4x4 image, BatchNorm, ReLU, average pooling, 3 outputs: 3x4 and 3x3

Settings are changed by their names, whatever the method (`USUAL`, `shortened`). A method for which that shows
nothing says in its class variable `demo` what does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np

from minisparse.data.dataset import Dataset
from minisparse.errors import MethodError
from minisparse.methods.base import Method
from minisparse.nn.activation import Activation
from minisparse.nn.init import kaiming_normal
from minisparse.nn.models import Builder, initialised
from minisparse.nn.network import Network
from minisparse.nn.norm import BatchNorm1d, BatchNorm2d
from minisparse.nn.param import Array
from minisparse.nn.pool import GlobalAvgPool
from minisparse.nn.window import Window
from minisparse.rng import generator
from minisparse.sparsity.schedule import Schedule

CLASSES, TRAIN, TEST = 3, 24, 12
LIGHT, NOISE = 1.5, 0.4  # where the centre of a class is not 0, and the deviation of samples from it

# what a setting of this name is changed to
USUAL: dict[str, Any] = {"sparsity": 0.5, "every": 3, "rounds": 2, "window": 2, "samples": TRAIN}


def perceptron(b: Builder) -> Network:
    """4-4-3."""
    layers = {"fc1": b.linear(4, 4), "relu": Activation("relu"), "fc2": b.linear(4, CLASSES)}
    return Network(layers, (4,), "perceptron 4-4-3")


def normalised(b: Builder) -> Network:
    """4-4-3 with BatchNorm."""
    layers = {
        "fc1": b.linear(4, 4), "bn": BatchNorm1d(4), "relu": Activation("relu"), "fc2": b.linear(4, CLASSES)
    }  # fmt: skip
    return Network(layers, (4,), "perceptron 4-4-3 with BatchNorm")


def convolution(b: Builder) -> Network:
    """Filters of 2x2 on images of 4x4."""
    layers = {
        "conv": b.conv(1, 3, Window.of(2, stride=2), bias=False), "bn": BatchNorm2d(3),
        "relu": Activation("relu"), "pool": GlobalAvgPool(), "fc": b.linear(3, CLASSES),
    }  # fmt: skip
    return Network(layers, (1, 4, 4), "convolution 1-3-3 with BatchNorm")


# from the simplest on; a method gets the first that it accepts
NETWORKS: tuple[Callable[[Builder], Network], ...] = (perceptron, normalised, convolution)


def network_for(method: Method, seed: int) -> Network:
    """The first of `NETWORKS` that the method accepts, initialised from `seed`; MethodError if none is."""
    refusals = []
    for build in NETWORKS:
        network = build(Builder(initialised(kaiming_normal, generator(seed, "init"))))
        try:
            method.check(network)
        except MethodError as refusal:
            refusals.append(refusal)
        else:
            return network
    raise refusals[-1]


def clusters(shape: tuple[int, ...], seed: int) -> Dataset:
    """As many samples of each class, float32: class k is LIGHT at inputs k, k + 4, ..., all else is noise.

    Inputs 3, 7, ... are noise in every class: what reads them is worth nothing.
    """
    rng, inputs = generator(seed, "clusters"), int(np.prod(shape))
    centres = np.where(np.arange(inputs) % 4 == np.arange(CLASSES)[:, None], LIGHT, 0.0)
    parts: list[Array] = []
    for n in (TRAIN, TEST):
        y = np.arange(n) % CLASSES
        x = centres[y] + NOISE * rng.standard_normal((n, inputs))
        parts += [x.astype(np.float32).reshape(n, *shape), y]
    return Dataset("three clusters", parts[0], parts[1], parts[2], parts[3], CLASSES)


def shortened(schedule: Schedule) -> Schedule:
    """The schedule with three rounds, or an update every two steps, where it has such a setting."""
    few = {"rounds": 3, "every": 2}
    return replace(schedule, **{f.name: few[f.name] for f in fields(schedule) if f.name in few})


def demonstration(cls: type[Method]) -> Method:
    """The method at settings under which something happens within a dozen steps."""
    settings: dict[str, Any] = {}
    for f in fields(cls):
        if isinstance(f.default, Schedule):
            settings[f.name] = shortened(f.default)
        elif f.name in USUAL:
            settings[f.name] = USUAL[f.name]
    return cls(**(settings | dict(cls.demo)))
