"""Paths, dead units, bytes and MACs, each against a count by hand."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from minisparse.errors import ShapeError, UsageError
from minisparse.sparsity import NM, LayerShape
from minisparse.sparsity.measure import (
    bits_for,
    bytes_bitmask,
    bytes_csr,
    bytes_dense,
    bytes_nm,
    compression,
    counts,
    csr_bits,
    dead_units,
    density,
    effective_masks,
    macs,
)


@st.composite
def chains(draw: st.DrawFn) -> list[np.ndarray]:
    widths = draw(st.lists(st.integers(1, 4), min_size=2, max_size=5))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    share = draw(st.sampled_from([0.2, 0.4, 0.7]))
    pairs = zip(widths, widths[1:], strict=False)
    return [rng.random((out, inputs)) < share for inputs, out in pairs]


def by_paths(masks: list[np.ndarray]) -> list[np.ndarray]:
    """Mark every weight of every path from an input to an output, one path at a time."""
    marked = [np.zeros_like(mask) for mask in masks]
    widths = [masks[0].shape[1], *(mask.shape[0] for mask in masks)]
    for path in product(*(range(width) for width in widths)):
        hops = list(zip(path, path[1:], strict=False))
        if all(mask[b, a] for mask, (a, b) in zip(masks, hops, strict=True)):
            for mark, (a, b) in zip(marked, hops, strict=True):
                mark[b, a] = True
    return marked


def by_removal(masks: list[np.ndarray]) -> list[np.ndarray]:
    """Remove weights at units without input or without output until nothing changes."""
    masks = [mask.copy() for mask in masks]
    while True:
        before = [mask.copy() for mask in masks]
        for low, high in zip(masks, masks[1:], strict=False):
            high[:, ~low.any(axis=1)] = False
            low[~high.any(axis=0), :] = False
        if all(np.array_equal(a, b) for a, b in zip(before, masks, strict=True)):
            return masks


@given(chains())
def test_effective_masks_are_the_union_of_all_paths_and_the_fixed_point(masks) -> None:
    found = effective_masks(masks)
    for mine, paths, removal in zip(found, by_paths(masks), by_removal(masks), strict=True):
        np.testing.assert_array_equal(mine, paths)
        np.testing.assert_array_equal(mine, removal)


@given(chains())
def test_outputs_depend_on_inputs_exactly_when_something_is_effective(masks) -> None:
    product_of_chain = np.eye(masks[0].shape[1])
    for mask in masks:
        product_of_chain = mask.astype(float) @ product_of_chain
    connected = bool(product_of_chain.any())
    assert all(mask.any() == connected for mask in effective_masks(masks))


def test_the_worked_chain() -> None:
    first = np.array([[1, 1, 0], [0, 1, 1], [1, 1, 1]], dtype=bool)
    second = np.array([[0, 1, 0]], dtype=bool)  # only the second unit is read
    effective = effective_masks([first, second])
    assert sum(int(mask.sum()) for mask in effective) == 2 + 1
    assert effective[0][1].tolist() == [False, True, True]


def test_a_cut_chain_has_no_effective_weight() -> None:
    dense = np.ones((3, 3), dtype=bool)
    assert not any(mask.any() for mask in effective_masks([dense, np.zeros((3, 3), bool), dense]))


def test_effective_masks_of_dense_layers_one_layer_and_none() -> None:
    dense = [np.ones((4, 3), bool), np.ones((2, 4), bool)]
    assert all(mask.all() for mask in effective_masks(dense))
    single = np.array([[True, False]])
    np.testing.assert_array_equal(effective_masks([single])[0], single)
    assert effective_masks([]) == []


def test_effective_masks_are_new_arrays() -> None:
    mask = np.ones((2, 2), dtype=bool)
    effective_masks([mask])[0][:] = False
    assert mask.all()


def test_masks_that_do_not_chain_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"got \(3, 2\) then \(2, 4\)"):
        effective_masks([np.ones((3, 2), bool), np.ones((2, 4), bool)])


def test_dead_units() -> None:
    inputs, outputs = dead_units(np.array([[1, 0, 1], [0, 0, 0]], dtype=bool))
    assert inputs.tolist() == [False, True, False]
    assert outputs.tolist() == [False, True]


def test_density_and_counts() -> None:
    mask = np.array([[True, False, False, False]])
    assert density(mask) == 0.25
    assert counts({"fc1": mask, "fc2": ~mask}) == {"fc1": (1, 4), "fc2": (3, 4)}
    with pytest.raises(ShapeError, match="mask is empty"):
        density(np.ones((0, 3), dtype=bool))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bytes_agree_with_real_arrays(dtype: type) -> None:
    rng = np.random.default_rng(0)
    weight = (rng.random((50, 70)) * (rng.random((50, 70)) < 0.3)).astype(dtype)
    stored = sparse.csr_array(weight)
    item = weight.itemsize
    assert bytes_dense(weight.shape, item) == weight.nbytes
    assert bytes_csr(stored.nnz, 50, item, stored.indices.itemsize) == (
        stored.data.nbytes + stored.indices.nbytes + stored.indptr.nbytes
    )
    bitmask = np.packbits(weight != 0)
    assert bytes_bitmask(weight.shape, stored.nnz, item) == bitmask.nbytes + stored.data.nbytes


def test_bytes_of_nm() -> None:
    assert bytes_dense((768, 3072)) / bytes_nm((768, 3072), 2, 4) == pytest.approx(1.88, abs=0.003)
    assert bytes_nm((1, 8), 4, 8) == 4 * 4 + 2  # four indices of three bits in two bytes
    assert bytes_nm((3, 10), 2, 4) == (3 * 2 * 2 + 3 * 2) * 4 + 3  # 12 indices of 2 bits
    assert bytes_nm((3, 10), 1, 1) == bytes_dense((3, 10))
    shape = LayerShape(5, 11)
    mask = NM(2, 4, "dense").eligible(np.ones(shape.matrix), shape, np.ones(shape.matrix, bool))
    values = int(mask.sum()) * 4
    assert values < bytes_nm(shape.matrix, 2, 4) <= values + 5 * 4 * 2 // 8 + 1


def test_bytes_published_for_a_vision_transformer_layer() -> None:
    assert bytes_dense((768, 3072)) == 9_437_184
    assert bytes_csr(235_776, 768) == 1_889_284


def test_bytes_published_for_rigl_on_mnist() -> None:
    """Appendix B of RigL: 4 bytes per weight and bias, and one bit per dense entry."""
    for widths, weights, published in [
        ((408, 100, 69, 10), 6287, 31914),
        ((375, 62, 51, 10), 3064, 16113),
    ]:
        pairs = list(zip(widths, widths[1:], strict=False))
        size = 4 * (weights + sum(widths[1:])) + -(-sum(a * b for a, b in pairs) // 8)
        total = bytes_bitmask((1, sum(a * b for a, b in pairs)), weights) + 4 * sum(widths[1:])
        assert total == size
        assert abs(total - published) <= 2


def test_index_bits() -> None:
    assert [bits_for(n) for n in (0, 1, 2, 3, 4, 5, 256, 257)] == [0, 0, 1, 2, 2, 3, 8, 9]
    assert csr_bits(nnz=1000, rows=300, columns=784) == 1000 * 10 + 300 * 10
    assert csr_bits(nnz=0, rows=300, columns=784) == 0


def test_compression_and_macs() -> None:
    assert compression(266_610, 27_030) == pytest.approx(9.8635, abs=1e-4)
    assert compression(10, 10) == 1
    assert compression(10, 0) == float("inf")
    assert macs(150, positions=28 * 28) == 117_600
    assert macs(150) == 150
    for total, kept in ((10, 11), (0, 0), (10, -1)):
        with pytest.raises(UsageError, match="parameter counts"):
            compression(total, kept)
