"""Channel pruning: its normal equations and least squares against their definitions, and what it removes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.errors import SparsityError, UsageError
from minisparse.methods.structured.channel_pruning import (
    ChannelPruning,
    Moments,
    adopt,
    branch_groups,
    by_lasso,
    normal_equations,
    prune_channels,
    refit,
    response_moments,
)
from minisparse.methods.structured.lasso import choose
from minisparse.methods.structured.ranked import masks_without, present
from minisparse.nn.activation import Activation
from minisparse.nn.linear import Linear
from minisparse.nn.network import Network
from minisparse.nn.pool import Flatten, MaxPool2d
from minisparse.nn.weight import MaskedWeight
from minisparse.nn.window import Window
from minisparse.sparsity.count import kept_count
from minisparse.sparsity.groups import groups_of
from minisparse.sparsity.schedule import OneShot, Rounds
from minisparse.sparsity.surgery import shrink
from tests.methods.problems import chain, clusters, conv_net, convolution, descend, mlp, state_of
from tests.strategies import SETTINGS, seeds

Array = np.ndarray


def layer_problem(rng: np.random.Generator, rows: int = 60) -> tuple[Array, ...]:
    """x (rows, 12) of unequal means and scales, y (rows, 5), weight, bias and columns of 4 channels."""
    x = (rng.standard_normal((rows, 12)) @ rng.standard_normal((12, 12)) + rng.standard_normal(12)) * 0.5
    columns = rng.permutation(12).reshape(4, 3)
    return x, rng.standard_normal((rows, 5)), rng.standard_normal((5, 12)), rng.standard_normal(5), columns


def moments_of(x: Array, y: Array, bias: bool, pieces: int = 1) -> Moments:
    found = Moments(x.shape[1], y.shape[1], bias)
    for a, b in zip(np.array_split(x, pieces), np.array_split(y, pieces), strict=True):
        found.add(a, b)
    return found


@SETTINGS
@given(st.booleans(), st.integers(1, 5), seeds)
def test_moments_give_the_normal_equations_of_the_lasso(bias, pieces, seed):
    """Column i of the design is vec(X_i W_i^T); with a bias, design and response are centred per output."""
    x, y, w, _, columns = layer_problem(np.random.default_rng(seed))
    design = np.stack([x[:, at] @ w[:, at].T for at in columns], axis=-1)
    response = y
    if bias:
        design, response = design - design.mean(axis=0), y - y.mean(axis=0)
    z = design.reshape(-1, len(columns))
    gram, target = normal_equations(w, columns, moments_of(x, y, bias, pieces))
    np.testing.assert_allclose(gram, z.T @ z / len(z), atol=1e-11)
    np.testing.assert_allclose(target, z.T @ response.ravel() / len(z), atol=1e-11)


@SETTINGS
@given(st.booleans(), seeds)
def test_refit_is_least_squares_on_the_kept_columns(bias, seed):
    rng = np.random.default_rng(seed)
    x, y, w, b, columns = layer_problem(rng)
    kept = np.zeros(12, dtype=bool)
    kept[columns[:2].ravel()] = True
    moments = moments_of(x, y, bias)
    new, shift = refit(w, b if bias else None, kept, moments)
    design = np.concatenate([x[:, kept], np.ones((len(x), 1))], axis=1) if bias else x[:, kept]
    best = np.linalg.lstsq(design, y, rcond=None)[0]
    np.testing.assert_allclose(new[:, kept], best[: kept.sum()].T, rtol=1e-6, atol=1e-8)
    assert not new[:, ~kept].any() and (shift is None) == (not bias)
    if bias:
        np.testing.assert_allclose(shift, best[-1], rtol=1e-6, atol=1e-8)
    error = ((y - x @ new.T - (shift if bias else 0)) ** 2).sum(axis=1).mean()
    assert moments.error(new, shift) == pytest.approx(error, rel=1e-9)


@SETTINGS
@given(st.booleans(), st.sampled_from((0.0, 1e-3, 1.0, 100.0)), st.integers(3, 60), seeds)
def test_refit_is_never_worse_than_what_it_starts_from(bias, damping, rows, seed):
    """Also with fewer rows than columns and whatever the damping."""
    rng = np.random.default_rng(seed)
    x, y, w, b, columns = layer_problem(rng, rows)
    kept = np.zeros(12, dtype=bool)
    kept[columns[rng.random(4) < 0.6].ravel()] = True
    moments, start = moments_of(x, y, bias), b if bias else None
    before = moments.error(np.where(kept, w, 0), start)
    after = moments.error(*refit(w, start, kept, moments, damping))
    assert after <= before + 1e-9 * moments.yy


@SETTINGS
@given(seeds)
def test_the_error_of_least_squares_falls_with_every_column_kept(seed):
    rng = np.random.default_rng(seed)
    x, y, w, b, _ = layer_problem(rng)
    moments, errors = moments_of(x, y, True), []
    kept = np.zeros(12, dtype=bool)
    for j in rng.permutation(12):
        kept[j] = True
        errors.append(moments.error(*refit(w, b, kept, moments)))
    assert (np.diff(errors) <= 1e-9 * moments.yy).all() and errors[-1] < errors[0]


def test_what_fits_already_stays_bit_for_bit_and_damping_holds_to_it():
    rng = np.random.default_rng(0)
    x, y, w, b, _ = layer_problem(rng)
    everything = np.ones(12, dtype=bool)
    exact = moments_of(x, x @ w.T + b, True)
    new, shift = refit(w, b, everything, exact)
    np.testing.assert_allclose(new, w, atol=1e-9)
    np.testing.assert_allclose(shift, b, atol=1e-9)
    moments = moments_of(x, y, True)
    ways = [np.abs(refit(w, b, everything, moments, d)[0] - w).max() for d in (0.0, 1.0, 1e6)]
    assert ways[0] > ways[1] > ways[2] and ways[2] < 1e-4


def test_where_data_do_not_tell_weights_stay_as_they_are():
    """An input that is always 0 keeps its weight; two inputs always equal share what is missing."""
    rng = np.random.default_rng(1)
    x = np.concatenate([np.zeros((30, 1)), np.tile(rng.standard_normal((30, 1)), (1, 2))], axis=1)
    w = np.array([[5.0, 1.0, 1.0]])
    new, _ = refit(w, None, np.ones(3, dtype=bool), moments_of(x, 6 * x[:, 1:2], False))
    np.testing.assert_allclose(new, [[5, 3, 3]], atol=1e-9)


def with_copy(rng: np.random.Generator) -> tuple[Network, Array]:
    """Perceptron whose hidden unit 5 is a copy of unit 2 and is read with half its weights."""
    network = mlp((8, 6, 4, 3), rng)
    first, second = network.prunable()["fc1"], network.prunable()["fc2"]
    first.weight.param.value[5] = first.weight.param.value[2]
    first.bias.value[5] = first.bias.value[2]
    second.weight.param.value[:, 5] = second.weight.param.value[:, 2] / 2
    return network, rng.standard_normal((80, 8))


@pytest.mark.parametrize("seed", range(5))
def test_a_copied_neuron_leaves_without_a_trace(seed):
    """All others explain something, one of the copies nothing: LASSO finds it, the refit adds its weights."""
    network, x = with_copy(np.random.default_rng(seed))
    group = branch_groups(network)[0]
    old = network.prunable()["fc2"].weight.dense().copy()
    pruned, _ = prune_channels(network, {group: 5}, [x], np.random.default_rng(0))
    gone = np.flatnonzero(~present(pruned, group))
    assert gone.tolist() == [5]  # of the two the one that adds less
    np.testing.assert_allclose(pruned.forward(x), network.forward(x), atol=1e-6)
    rest = pruned.prunable()["fc2"].weight.dense()
    np.testing.assert_allclose(rest[:, 2], 1.5 * old[:, 2], atol=1e-5)


def test_without_the_refit_the_copy_is_missed():
    network, x = with_copy(np.random.default_rng(2))
    group = branch_groups(network)[0]
    pruned, _ = prune_channels(network, {group: 5}, [x], np.random.default_rng(0), damping=None)
    assert np.abs(pruned.forward(x) - network.forward(x)).max() > 1e-2


def test_a_neuron_that_is_a_linear_combination_can_be_removed_without_error():
    rng = np.random.default_rng(3)
    w1 = rng.standard_normal((5, 6))
    w1[4] = 2 * w1[0] - w1[1]
    network = chain(w1, rng.standard_normal((3, 5)), activation="identity", biases=True)
    x, keep = rng.standard_normal((50, 6)), np.arange(5) != 4
    pruned, _ = prune_channels(network, {branch_groups(network)[0]: 4}, [x], rng, lambda *_: keep)
    np.testing.assert_allclose(pruned.forward(x), network.forward(x), atol=1e-6)


def image_chain(rng: np.random.Generator) -> Network:
    """Convolution, ReLU, pooling, convolution, ReLU, flatten, linear; every layer with a bias."""
    return Network(
        {
            "conv1": convolution(rng, 2, 5, bias=True),
            "relu1": Activation("relu"),
            "pool": MaxPool2d(Window.of(2, 2)),
            "conv2": convolution(rng, 5, 6, bias=True),
            "relu2": Activation("relu"),
            "flatten": Flatten(),
            "fc": Linear(MaskedWeight(rng.standard_normal((3, 54))), np.zeros(3)),
        },
        (2, 6, 6),
    )


@pytest.mark.parametrize(("producer", "at"), [("conv1", 0), ("conv2", 1)])
def test_a_copied_filter_leaves_without_a_trace(producer, at):
    """Through pooling into a convolution, and through flattening into a linear layer."""
    rng = np.random.default_rng(4)
    network = image_chain(rng)
    layer = network.prunable()[producer]
    layer.weight.param.value[3] = layer.weight.param.value[1]
    layer.bias.value[3] = layer.bias.value[1]
    x, group = rng.standard_normal((120, 2, 6, 6)), branch_groups(network)[at]
    assert group.producers[0][0] == producer
    keep = np.arange(len(group)) != 3
    pruned, _ = prune_channels(network, {group: len(group) - 1}, [x], rng, lambda *_: keep)
    assert present(pruned, group).tolist() == keep.tolist()
    np.testing.assert_allclose(pruned.forward(x), network.forward(x), atol=1e-5)


def test_targets_are_the_original_networks_and_inputs_those_of_the_pruned_one():
    rng = np.random.default_rng(5)
    network, x = mlp((8, 7, 6, 3), rng), rng.standard_normal((40, 8))
    work, _ = prune_channels(network, {branch_groups(network)[0]: 3}, [x], rng)
    found = response_moments(work, network, "fc2", [x[:25], x[25:]], 1, rng)
    layers = list(network.layers.values())
    hidden = np.maximum(layers[0].forward(x), 0)
    y = hidden @ network.prunable()["fc2"].weight.dense().T + network.prunable()["fc2"].bias.value
    work.forward(x)
    inputs = work.prunable()["fc2"].x
    twin = moments_of(inputs, y, True)
    for name in ("xx", "xy", "yy"):
        np.testing.assert_allclose(getattr(found, name), getattr(twin, name), atol=1e-12)
    assert np.abs(inputs - hidden).max() > 0.1


def test_positions_are_drawn_without_repetition_and_alike_in_both_networks():
    """With an untouched network inputs and outputs belong together at any number of positions: no error."""
    rng = np.random.default_rng(6)
    network, x = image_chain(rng), rng.standard_normal((30, 2, 6, 6))
    layer = network.prunable()["conv2"]
    for positions, rows in ((4, 120), (9, 270), (100, 270)):
        found = response_moments(network, network, "conv2", [x], positions, rng)
        assert found.rows == rows
        assert found.error(layer.weight.dense(), layer.bias.value) < 1e-10 * found.yy


def test_a_group_that_keeps_all_its_units_is_left_alone():
    rng = np.random.default_rng(6)
    network, x = mlp((8, 7, 6, 3), rng), rng.standard_normal((40, 8))
    first, second = branch_groups(network)
    pruned, keep = prune_channels(network, {first: 7, second: 9}, [x], rng)
    assert keep == {}
    assert all((pruned.state()[key] == value).all() for key, value in network.state().items())
    pruned, keep = prune_channels(network, {first: 7, second: 5}, [x], rng)
    assert (
        set(keep) == {second}
        and (pruned.state()["fc2.weight"] == network.state()["fc2.weight"])[keep[second]].all()
    )


def test_channels_of_a_residual_stream_stay_and_those_inside_the_branch_leave():
    rng = np.random.default_rng(7)
    network = conv_net(rng)
    state = state_of(network, rng.standard_normal((40, 2, 6, 6)), rng.integers(0, 3, 40))
    ChannelPruning(0.4, OneShot(0.0)).setup(state)
    masks = state.network.masks()
    assert masks["conv"].all() and masks["fc"].all()
    first, second = masks["block.branch.conv1"], masks["block.branch.conv2"]
    rows = first.any(axis=1)
    assert 0 < rows.sum() < 4 and (first == rows[:, None]).all()
    assert (second == np.tile(rows, 9)[None, :]).all()


def test_masked_and_shrunken_networks_agree():
    rng = np.random.default_rng(8)
    for network in (conv_net(rng), image_chain(rng)):
        x = rng.standard_normal((50, 2, 6, 6))
        groups = branch_groups(network)
        pruned, _ = prune_channels(network, {g: 2 for g in groups}, [x], rng)
        keep = {g: present(pruned, g) for g in groups_of(pruned)}
        small = shrink(pruned, keep)
        assert sum(x.weight.size for x in small.prunable().values()) == sum(
            x.weight.kept for x in pruned.prunable().values()
        )
        np.testing.assert_allclose(small.forward(x), pruned.forward(x), atol=1e-10)


def test_the_state_gets_the_refitted_layers_and_loses_every_trace_of_the_units():
    """Outputs are those of the pruned copy; biases, norms and slots of what left are 0."""
    rng = np.random.default_rng(9)
    for network in (conv_net(rng), image_chain(rng)):
        x, t = rng.standard_normal((40, 2, 6, 6)), rng.integers(0, 3, 40)
        state = state_of(network.copy(), x, t)
        descend(state)
        state.optimizer.step(state.network, 0.1)
        kept = {g: 2 for g in branch_groups(state.network)}
        pruned, keep = prune_channels(state.network, kept, [x], rng)
        adopt(state, pruned, keep)
        np.testing.assert_allclose(state.network.forward(x), pruned.forward(x), atol=1e-12)
        params = state.network.params()
        for group, mask in keep.items():
            assert present(state.network, group).tolist() == mask.tolist() and mask.sum() == 2
            owners = [(n, ("bias",), rows) for n, rows in group.producers]
            owners += [(n, ("weight", "bias"), rows) for n, rows in group.norms]
            for key in (f"{n}.{k}" for n, kinds, _ in owners for k in kinds if f"{n}.{k}" in params):
                assert not params[key].value[~mask].any() and params[key].value[mask].any()
                assert not state.optimizer.slots[key]["u"][~mask].any()


@SETTINGS
@given(st.floats(0, 0.95), seeds)
def test_no_more_weights_stay_than_asked_and_nearly_as_many(sparsity, seed):
    rng = np.random.default_rng(seed)
    widths = (6, *rng.integers(3, 12, 2).tolist(), 3)
    state = state_of(mlp(widths, rng), rng.standard_normal((40, 6)), rng.integers(0, 3, 40))
    ChannelPruning(sparsity, OneShot(0.0)).setup(state)
    kept = sum(x.weight.kept for x in state.network.prunable().values())
    size = sum(x.weight.size for x in state.network.prunable().values())
    one_each = 6 + 1 + 3
    asked = kept_count(size, sparsity)
    assert kept <= max(asked, one_each)
    assert kept > asked - (6 + widths[2]) - (widths[1] + 3) or kept == one_each


def test_levels_on_the_way_only_ever_remove():
    rng = np.random.default_rng(10)
    data = clusters(rng, (8,))
    state = state_of(mlp((8, 12, 9, 3), rng), data.train_x, data.train_y)
    method, alive = ChannelPruning(0.8, Rounds(3, 0.0, 0.5)), []
    method.setup(state)
    for state.step in range(1, 12):
        method.after_update(state)
        alive.append([present(state.network, g) for g in branch_groups(state.network)])
    for before, after in zip(alive, alive[1:], strict=False):
        assert all(not (b & ~a).any() for a, b in zip(before, after, strict=True))
    assert sum(m.sum() for m in alive[-1]) < sum(m.sum() for m in alive[0]) < 21


def test_rebuilds_outputs_better_than_random_channels_and_than_its_choice_without_the_refit():
    """Mean over seeds of the squared change of the network's outputs, at equal channels."""

    def random_rule(network, group, moments, keep):
        return np.isin(np.arange(len(group)), np.random.default_rng(keep).permutation(len(group))[:keep])

    changes = {"lasso": [], "unfitted": [], "random": []}
    for seed in range(6):
        rng = np.random.default_rng(seed)
        network, x = mlp((10, 16, 12, 4), rng), rng.standard_normal((200, 10))
        kept = {g: len(g) // 2 for g in branch_groups(network)}
        ways = {"lasso": (by_lasso, 0.0), "unfitted": (by_lasso, None), "random": (random_rule, 0.0)}
        for name, (rule, damping) in ways.items():
            pruned, _ = prune_channels(network, kept, [x], rng, rule, damping=damping)
            changes[name].append(((pruned.forward(x) - network.forward(x)) ** 2).mean())
    means = {name: np.mean(values) for name, values in changes.items()}
    assert means["lasso"] < 0.8 * means["random"] and means["lasso"] < 0.5 * means["unfitted"]


def test_the_rule_is_the_lasso_on_the_moments_among_present():
    rng = np.random.default_rng(11)
    network, x = mlp((8, 7, 3), rng), rng.standard_normal((60, 8))
    (group,) = branch_groups(network)
    for name, mask in masks_without(network, {group: np.arange(7) != 3}).items():
        network.prunable()[name].weight.rewire(mask)
    moments = response_moments(network, network, "fc2", [x], 1, rng)
    weight = network.prunable()["fc2"].weight.dense()
    expected = choose(*normal_equations(weight, group.consumers[0][1], moments), 4, np.arange(7) != 3)
    np.testing.assert_array_equal(by_lasso(network, group, moments, 4), expected)


def test_unusable_settings_are_refused():
    for bad in ({"samples": 0}, {"positions": 1.5}, {"damping": -1}, {"damping": float("nan")}):
        with pytest.raises(UsageError):
            ChannelPruning(**bad)
    with pytest.raises(SparsityError):
        ChannelPruning(1.0)
