"""TrainState: the only mutable thing of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from numpy.random import Generator

from minisparse.nn.loss import Loss
from minisparse.nn.lr import Rate
from minisparse.nn.mode import EVAL, Mode
from minisparse.nn.network import Network
from minisparse.nn.optim import Optimizer
from minisparse.nn.param import Array
from minisparse.rng import generator


@dataclass
class TrainState:
    """Everything that changes while a network trains, and what methods may ask for.

    horizon          steps of one training; the learning rate is defined over it
    clock            position within that training; equals `step` unless a method rewinds it
    train_x, train_t the whole training data, read-only
    probe_x, probe_t a fixed class-balanced sample of it for scores
    memory           arrays a method owns, by name
    """

    network: Network
    optimizer: Optimizer
    loss: Loss
    rate: Rate
    seed: int
    horizon: int
    steps_per_epoch: int
    train_x: Array
    train_t: Array
    probe_x: Array
    probe_t: Array
    step: int = 0
    clock: int = 0
    value: float = float("nan")
    topology: int = 0
    memory: dict[str, dict[str, Array]] = field(default_factory=dict)

    @property
    def lr(self) -> float:
        """Learning rate of the coming update."""
        return self.rate.at(self.clock, self.horizon)

    def rng(self, purpose: str) -> Generator:
        """Generator of this run, purpose and step; asking twice gives the same draws."""
        return generator(self.seed, purpose, step=self.step)

    def training(self) -> Mode:
        """Mode of this step's forward pass."""
        return Mode(training=True, rng=self.rng("noise"))

    def calibration(self, samples: int) -> tuple[Array, Array]:
        """A fixed random sample (x, target) of the training data, at most all of it."""
        order = generator(self.seed, "calibration").permutation(len(self.train_x))[:samples]
        return self.train_x[order], self.train_t[order]

    def rewire(self, masks: dict[str, Array]) -> None:
        """Impose masks by layer name and move the optimiser's slots: one of two ways to change topology."""
        layers = self.network.prunable()
        self._moved({name: layers[name].weight.rewire(mask) for name, mask in masks.items()})

    def rewire_flat(self, flats: dict[str, Array]) -> None:
        """The same from ascending flat positions of the entries that are to be present, by layer name."""
        layers = self.network.prunable()
        self._moved({name: layers[name].weight.rewire_flat(flat) for name, flat in flats.items()})

    def _moved(self, sources: dict[str, dict[str, Array]]) -> None:
        for name, moved in sources.items():
            for key, source in moved.items():
                self.optimizer.remap(f"{name}.{key}", source)
        self.topology += 1

    def probe_gradients(self) -> dict[str, Array]:
        """dL/dW (out, in) of each prunable layer on the probe sample, absent entries included.

        In evaluation mode: no dropout, running statistics. Overwrites the parameters' `grad`.
        """
        y = self.network.forward(self.probe_x, EVAL)
        self.loss.value(y, self.probe_t)
        self.network.backward(self.loss.grad(), need_dx=False)
        return {name: layer.dense_grad() for name, layer in self.network.prunable().items()}
