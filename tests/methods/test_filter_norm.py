"""Filter norm: norms against loops, what orders them, and what does not."""

import numpy as np
import pytest

from minisparse.errors import UsageError
from minisparse.methods.structured.filter_norm import FilterNorm, unit_norms
from minisparse.methods.structured.ranked import present
from minisparse.nn import models as zoo
from minisparse.nn.network import Network
from minisparse.sparsity import Global, OneShot, Row, Uniform
from minisparse.sparsity.groups import groups_of
from minisparse.sparsity.surgery import remove_dead
from tests.methods.problems import chain, conv_net, mlp, state_of
from tests.methods.test_magnitude import pruned as magnitude_pruned

NOW = OneShot(0.0)


def pruned(network: Network, **settings) -> dict[str, list[bool]]:
    """Units that stay in a copy pruned before step 0, by group."""
    copy = network.copy()
    x = np.zeros((2, *copy.input_shape), dtype=copy.dtype)
    FilterNorm(**{"schedule": NOW, "share_of": "units"} | settings).setup(
        state_of(copy, x, np.zeros(2, dtype=int))
    )
    return {group.name: present(copy, group).tolist() for group in groups_of(copy)}


@pytest.mark.parametrize(("norm", "stays"), [(1, [False, True]), (2, [True, False])])
def test_l1_and_l2_order_these_two_neurons_differently(norm, stays):
    # L1: 3 < 3.5;  L2: 3 > 1.803
    network = chain([[3, 0, 0, 0], [1, 1, 1, 0.5]], [[1, 1]])
    (group,) = groups_of(network)
    expected = [3.0, 3.5] if norm == 1 else [3.0, np.sqrt(3.25)]
    np.testing.assert_allclose(unit_norms(network, group, norm), expected)
    assert pruned(network, sparsity=0.5, norm=norm) == {"fc1": stays}


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("power", [1, 2])
def test_a_unit_of_a_residual_stream_is_scored_by_all_its_weights(power, coupled):
    network = conv_net(np.random.default_rng(0), width=3)
    dense = {name: layer.weight.dense() for name, layer in network.prunable().items()}
    stream, inner = groups_of(network)
    kernels = {n: w.reshape(3, 3, 3, -1) for n, w in dense.items() if n != "fc"}  # (out, ky, kx, channel)
    pixels = dense["fc"].reshape(3, 3, 3, 3)  # (out, channel, row, column)
    for u in range(3):
        parts = {
            stream: [kernels["conv"][u], kernels["block.branch.conv2"][u]],
            inner: [kernels["block.branch.conv1"][u]],
        }
        if coupled:
            parts[stream] += [kernels["block.branch.conv1"][..., u], pixels[:, u]]
            parts[inner] += [kernels["block.branch.conv2"][..., u]]
        for group, arrays in parts.items():
            entries = np.concatenate([a.ravel() for a in arrays])
            assert unit_norms(network, group, power, coupled)[u] == pytest.approx(
                np.linalg.norm(entries, power)
            )


@pytest.mark.parametrize("norm", [1, 2])
def test_rows_of_hidden_layers_rank_as_magnitude_ranks_them(norm):
    """The control: the pattern of rows in magnitude pruning, which leaves the readers' columns behind."""
    network = mlp((8, 12, 12, 3), np.random.default_rng(4))
    found = pruned(network, sparsity=0.5, norm=norm)
    rows = magnitude_pruned(network, sparsity=0.5, norm=norm, pattern=Row(), allocation=Uniform())
    for name in ("fc1", "fc2"):
        assert found[name] == rows[name].any(axis=1).tolist()


@pytest.mark.parametrize(
    "settings", [{"normalize": True}, {"normalize": True, "norm": 2}, {"allocation": Uniform()}]
)
def test_the_scale_of_a_layer_does_not_matter(settings):
    rng = np.random.default_rng(1)
    a, b, c = (rng.standard_normal(shape) for shape in ((6, 5), (7, 6), (3, 7)))
    settings = {"sparsity": 0.5, "allocation": Global()} | settings
    assert pruned(chain(a, b, c), **settings) == pruned(chain(a, 2.0**-9 * b, c), **settings)


def test_without_normalisation_a_global_ranking_empties_the_layer_of_small_scale():
    network = chain(0.01 * np.ones((6, 2)), np.ones((6, 6)), np.ones((2, 6)))
    settings = {"sparsity": 5 / 12, "allocation": Global()}
    assert pruned(network, normalize=False, **settings) == {"fc1": [True] + [False] * 5, "fc2": [True] * 6}


def test_the_order_of_units_does_not_matter():
    rng = np.random.default_rng(2)
    a, b, c = (rng.standard_normal(shape) for shape in ((6, 5), (8, 6), (3, 8)))
    p, q = rng.permutation(6), rng.permutation(8)
    plain = pruned(chain(a, b, c), sparsity=0.5)
    moved = pruned(chain(a[p], b[q][:, p], c[:, q]), sparsity=0.5)
    assert moved == {"fc1": np.array(plain["fc1"])[p].tolist(), "fc2": np.array(plain["fc2"])[q].tolist()}


def test_a_unit_without_weights_is_the_first_to_go():
    network = mlp((6, 5, 4, 2), np.random.default_rng(0))
    mask = np.ones((5, 6), dtype=bool)
    mask[3] = False
    network.prunable()["fc1"].weight.rewire(mask)
    assert not pruned(network, sparsity=1 / 9, allocation=Global())["fc1"][3]


@pytest.mark.parametrize("name", ["lenet-5", "resnet-20:0.25", "vgg-small"])
def test_half_of_the_units_leave_a_quarter_of_the_inner_weights(name):
    network = zoo.make(name, (1, 8, 8), 10)
    x = np.random.default_rng(0).standard_normal((3, 1, 8, 8)).astype(np.float32)
    FilterNorm(0.5, schedule=NOW, share_of="units").setup(state_of(network, x, np.arange(3)))
    small = remove_dead(network)
    for layer, cut in list(zip(network.prunable().values(), small.prunable().values(), strict=True))[1:-1]:
        assert cut.weight.size * 4 == layer.weight.size
    np.testing.assert_allclose(small.forward(x), network.forward(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "settings", [{"norm": 3}, {"norm": True}, {"norm": 1.0}, {"coupled": 1}, {"normalize": "no"}]
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(UsageError):
        FilterNorm(**settings)
