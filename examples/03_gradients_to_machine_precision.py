"""How do you know a hand-written derivative is right? Take a complex step.

f(w + i h v) = f(w) + i h f'(w) v + O(h^2): the imaginary part has no subtraction in it, so h = 1e-20 is
possible and the derivative is exact to rounding. One step through the loss checks the gradient, one step
through the gradient checks the Hessian. Writes complex_step.png.
"""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import minisparse as ms
from minisparse.nn import CrossEntropy
from minisparse.rng import generator

data = ms.data.load("digits").astype(np.float64)
x, target = data.train_x[:20], data.train_y[:20]
network = ms.models.build("mlp:64-100-50-10:gelu", data, seed=0).astype(np.float64)
loss = CrossEntropy()
rng = generator(0, "direction")
direction = {name: rng.standard_normal(p.value.shape) for name, p in network.params().items()}


def along(step: complex) -> complex:
    """The loss at w + step * direction."""
    moved = network.astype(np.complex128)
    for name, p in moved.params().items():
        p.value += step * direction[name]
    return loss.value(moved.forward(x.astype(np.complex128)), target)


loss.value(network.forward(x), target)
network.backward(loss.grad())
slope = sum((p.grad * direction[name]).sum() for name, p in network.params().items())

steps = np.logspace(-20, -1, 39)
exact = [abs(along(1j * h).imag / h - slope) / abs(slope) for h in steps]
central = [abs((along(h) - along(-h)).real / (2 * h) - slope) / abs(slope) for h in steps]
print(f"explicit backpropagation and complex step differ by {exact[0]:.1e} (relative)")
print(f"the best central difference differs by {min(central):.1e}")

figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.loglog(steps, np.maximum(exact, 1e-17), "o-", ms=3, label="complex step")
axes.loglog(steps, np.maximum(central, 1e-17), "s-", ms=3, label="central difference")
axes.set(xlabel="step size h", ylabel="relative error", title="Directional derivative of the loss")
axes.legend()
figure.savefig("complex_step.png", dpi=120)
