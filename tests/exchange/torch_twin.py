"""State dicts in PyTorch's layout and the functions they stand for, written out in float64 NumPy.

Nothing here uses the package under test.
"""

from typing import Any

import numpy as np

Array = np.ndarray
State = dict[str, Array]


def conv(x: Array, kernel: Array, bias: Array | None = None, stride: int = 1, padding: int = 0) -> Array:
    """y[n, o, i, j] = sum_c,a,b K[o, c, a, b] x[n, c, stride i + a - padding, stride j + b - padding]."""
    wide = np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
    patches = np.lib.stride_tricks.sliding_window_view(wide, kernel.shape[2:], axis=(2, 3))
    y = np.einsum("ncijab,ocab->noij", patches[:, :, ::stride, ::stride], kernel)
    return y if bias is None else y + bias[:, None, None]


def norm(x: Array, s: State, name: str) -> Array:
    mean, var, gamma, beta = (
        s[f"{name}.{k}"][:, None, None] for k in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / np.sqrt(var + 1e-5) * gamma + beta


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def pool(x: Array) -> Array:
    n, c, h, w = x.shape
    return x[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, c, h // 2, 2, w // 2, 2).max(axis=(3, 5))


def linear(x: Array, s: State, name: str) -> Array:
    return x.reshape(len(x), -1) @ s[f"{name}.weight"].T + s[f"{name}.bias"]


def draw(rng: np.random.Generator, shapes: dict[str, tuple[int, ...]]) -> State:
    """Numbers of a trained look; variances are positive."""
    s = {key: rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1) for key, shape in shapes.items()}
    for key in s:
        if key.endswith("running_var"):
            s[key] = np.exp(s[key])
        if key.endswith("num_batches_tracked"):
            s[key] = np.array(7)
    return s


def layer(name: str, *shape: int, bias: bool = True) -> dict[str, Any]:
    found: dict[str, Any] = {f"{name}.weight": shape}
    return found | ({f"{name}.bias": shape[:1]} if bias else {})


def batchnorm(name: str, width: int) -> dict[str, Any]:
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{k}": (width,) for k in leaves} | {f"{name}.num_batches_tracked": ()}


LENET_5 = (
    layer("conv1", 6, 1, 3, 3) | layer("conv2", 16, 6, 3, 3)
    | layer("fc1", 120, 64) | layer("fc2", 84, 120) | layer("fc3", 10, 84)
)  # fmt: skip


def lenet5(s: State, x: Array) -> Array:
    """On 8x8 images, where kernels are 3x3 and padded."""
    x = pool(relu(conv(x, s["conv1.weight"], s["conv1.bias"], padding=1)))
    x = pool(relu(conv(x, s["conv2.weight"], s["conv2.bias"], padding=1)))
    return linear(relu(linear(relu(linear(x, s, "fc1")), s, "fc2")), s, "fc3")


VGG_PLACES = (
    0,
    3,
    7,
    10,
    14,
    17,
)  # of the convolutions in nn.Sequential(conv, bn, relu, conv, bn, relu, pool, ..)


def vgg_shapes(widths: tuple[int, ...] = (64, 64, 128, 128, 256, 256)) -> dict[str, Any]:
    """As in torchvision: convolutions have a bias, and the classifier is registered under another name."""
    found: dict[str, Any] = {}
    before = 1
    for at, width in zip(VGG_PLACES, widths, strict=True):
        found |= layer(f"features.{at}", width, before, 3, 3) | batchnorm(f"features.{at + 1}", width)
        before = width
    return found | layer("classifier", 10, before)


def vgg(s: State, x: Array) -> Array:
    for k, at in enumerate(VGG_PLACES):
        x = conv(x, s[f"features.{at}.weight"], s[f"features.{at}.bias"], padding=1)
        x = relu(norm(x, s, f"features.{at + 1}"))
        x = pool(x) if k % 2 else x
    return linear(x, s, "classifier")


def resnet_shapes(widths: tuple[int, ...], last: str = "linear", prefix: str = "") -> dict[str, Any]:
    """Y. Idelbayev's names: layer1.0.conv1, layer1.0.bn1, ..., linear."""
    found = layer(f"{prefix}conv1", widths[0], 1, 3, 3, bias=False) | batchnorm("bn1", widths[0])
    before = widths[0]
    for stage, width in enumerate(widths, 1):
        for k in range(3):
            name = f"layer{stage}.{k}."
            found |= layer(f"{name}{prefix}conv1", width, before, 3, 3, bias=False)
            found |= layer(f"{name}{prefix}conv2", width, width, 3, 3, bias=False)
            found |= batchnorm(f"{name}bn1", width) | batchnorm(f"{name}bn2", width)
            before = width
    return found | layer(f"{prefix}{last}", 10, before)


def resnet(s: State, x: Array, widths: tuple[int, ...], both_sides: bool, last: str = "linear") -> Array:
    x = relu(norm(conv(x, s["conv1.weight"], padding=1), s, "bn1"))
    for stage, width in enumerate(widths, 1):
        for k in range(3):
            name, stride = f"layer{stage}.{k}", 2 if stage > 1 and k == 0 else 1
            y = relu(norm(conv(x, s[f"{name}.conv1.weight"], None, stride, 1), s, f"{name}.bn1"))
            y = norm(conv(y, s[f"{name}.conv2.weight"], None, 1, 1), s, f"{name}.bn2")
            more = width - x.shape[1]
            left = more // 2 if both_sides else 0
            x = np.pad(x[:, :, ::stride, ::stride], [(0, 0), (left, more - left), (0, 0), (0, 0)])
            x = relu(y + x)
    return linear(x.mean(axis=(2, 3)), s, last)
