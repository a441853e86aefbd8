"""Optimisers: SGD (momentum, Nesterov, weight decay), Adam and AdamW, with generic slots.

    SGD      d = g + wd w;  u <- mu u + d;  w <- w - lr u        (Nesterov: w <- w - lr (d + mu u))   (1)
    Adam     d = g + wd w;  m <- b1 m + (1-b1) d;  v <- b2 v + (1-b2) d^2;
             w <- w - lr mhat / (sqrt(vhat) + eps),  mhat = m / (1 - b1^t), vhat = v / (1 - b2^t)     (2)
    AdamW    the same with d = g, and w <- (1 - lr wd) w first                                        (3)

D. P. Kingma, J. Ba, Adam, ICLR 2015, arXiv:1412.6980; I. Loshchilov, F. Hutter, Decoupled Weight Decay
Regularization, ICLR 2019, arXiv:1711.05101.

A zero weight with zero gradient and zero slots stays exactly zero under all of them: this is what keeps
pruned weights pruned, and `remap` is the one way slots follow a change of topology.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from numbers import Real

import numpy as np

from minisparse.errors import UsageError
from minisparse.kernels.merge import gather
from minisparse.kernels.update import adam_update, sgd_update
from minisparse.nn.network import Network
from minisparse.nn.param import Array, Param


def _positive(name: str, value: float, least: float = 0.0, most: float = np.inf) -> float:
    if not isinstance(value, Real) or isinstance(value, bool) or not least <= value < most:
        raise UsageError(f"optimizer {name}: got {value!r}, expected {least} <= {name} < {most}.")
    return float(value)


class Optimizer(ABC):
    """Steps all parameters of a network; slots are arrays of each parameter's shape."""

    slot_names: tuple[str, ...] = ()

    def __init__(self, weight_decay: float = 0.0) -> None:
        self.weight_decay = _positive("weight_decay", weight_decay)
        self.slots: dict[str, dict[str, Array]] = {}
        self.t = 0

    def step(self, network: Network, lr: float) -> None:
        """One update of every parameter from its grad."""
        self.t += 1
        for key, p in network.params().items():
            slots = self.slots.setdefault(key, {})
            for name in self.slot_names:
                if name not in slots:
                    slots[name] = np.zeros_like(p.value)
            self._update(p, slots, lr * p.rate, self.weight_decay if p.decay else 0.0)

    @abstractmethod
    def _update(self, p: Param, slots: dict[str, Array], lr: float, decay: float) -> None:
        """Equation of the subclass, in place."""

    def remap(self, key: str, source: Array) -> None:
        """Move the slots of parameter `key`: entry i takes what entry source[i] had, 0 if -1."""
        for name, slot in self.slots.get(key, {}).items():
            moved = np.empty(source.size, dtype=slot.dtype)
            gather(slot.reshape(-1), source, 0, moved)
            shape = slot.shape if source.size == slot.size else source.shape
            self.slots[key][name] = moved.reshape(shape)

    def reset(self) -> None:
        """Forget all slots and the step count."""
        self.slots.clear()
        self.t = 0


class SGD(Optimizer):
    """Gradient descent with momentum, Nesterov's form and weight decay, equation (1). Slot 'u'."""

    def __init__(self, momentum: float = 0.9, nesterov: bool = False, weight_decay: float = 0.0) -> None:
        super().__init__(weight_decay)
        self.momentum = _positive("momentum", momentum, most=1.0)
        self.nesterov = nesterov
        self.slot_names = ("u",) if momentum else ()

    def _update(self, p: Param, slots: dict[str, Array], lr: float, decay: float) -> None:
        if not self.slot_names:
            p.value -= p.value.dtype.type(lr) * (p.grad + p.value.dtype.type(decay) * p.value)
            return
        real = p.value.real.dtype.type
        sgd_update(
            p.value.reshape(-1), p.grad.reshape(-1), slots["u"].reshape(-1),
            real(lr), real(self.momentum), real(decay), self.nesterov,
        )  # fmt: skip


class Adam(Optimizer):
    """Steps scaled by running moments of the gradient, equation (2). Slots 'm' and 'v'."""

    slot_names = ("m", "v")
    decoupled = False

    def __init__(
        self,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(weight_decay)
        self.beta1 = _positive("beta1", beta1, most=1.0)
        self.beta2 = _positive("beta2", beta2, most=1.0)
        self.eps = _positive("eps", eps)

    def _update(self, p: Param, slots: dict[str, Array], lr: float, decay: float) -> None:
        real = p.value.real.dtype.type
        # corrections for the betas as rounded: in float32 1 - beta2 is off by 1e-5 of itself
        b1, b2 = float(real(self.beta1)), float(real(self.beta2))
        c1, c2 = 1 - b1**self.t, 1 - b2**self.t
        adam_update(
            p.value.reshape(-1), p.grad.reshape(-1), slots["m"].reshape(-1), slots["v"].reshape(-1),
            np.array([lr, b1, b2, self.eps, decay, c1, c2], dtype=real),
            self.decoupled,
        )  # fmt: skip


class AdamW(Adam):
    """Adam with weight decay decoupled from the moments, equation (3)."""

    decoupled = True


OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}
