"""Geometry of a prunable layer."""

import numpy as np
import pytest

from minisparse.errors import ShapeError
from minisparse.sparsity import LayerShape


def test_linear_layer_has_one_tap() -> None:
    shape = LayerShape(300, 784)
    assert (shape.matrix, shape.size, shape.taps) == ((300, 784), 235200, 1)
    assert shape.dims == (784, 300, 1, 1)


def test_convolution_flattens_its_kernel_and_keeps_the_order_of_dims() -> None:
    shape = LayerShape(out=6, channels=5, kh=3, kw=2)
    assert (shape.matrix, shape.size, shape.taps) == ((6, 30), 180, 6)
    assert shape.dims == (5, 6, 3, 2)


def test_channel_is_the_fastest_column_index() -> None:
    shape = LayerShape(out=1, channels=3, kh=2, kw=4)
    kernel = np.arange(shape.size).reshape(1, 2, 4, 3)  # (out, ky, kx, channel)
    row = kernel.reshape(shape.matrix)[0]
    for ky in range(2):
        for kx in range(4):
            for channel in range(3):
                assert row[(ky * 4 + kx) * 3 + channel] == kernel[0, ky, kx, channel]


def test_equal_geometry_is_equal_and_hashes_equal_whatever_the_integer_type() -> None:
    a, b = LayerShape(np.int32(4), np.int64(2)), LayerShape(4, 2, 1, 1)
    assert a == b
    assert hash(a) == hash(b)
    assert type(a.size) is int


@pytest.mark.parametrize("bad", [0, -1, 2.0, True, "3", None, float("nan")])
@pytest.mark.parametrize("field", ["out", "channels", "kh", "kw"])
def test_dimensions_are_whole_numbers_from_one(field: str, bad: object) -> None:
    dims = {"out": 2, "channels": 2, field: bad}
    with pytest.raises(ShapeError, match=f"bad {field}"):
        LayerShape(**dims)  # type: ignore[arg-type]
