"""Prune trained networks in one shot, retrain nothing, and see what second-order information is worth.

The same digits perceptrons, pruned to 50, 70 and 80 % by methods that look at random numbers, magnitudes,
inputs, the Hessian's diagonal, each layer's Gram matrix, or the whole network's inverse Hessian; then a wider
network on pixels with their mean removed, which is what Wanda's norms of inputs want. Then one
layer is looked at closely: for one and the same mask, how large is the error of its outputs if what stays
is left alone, adjusted from left to right (SparseGPT), or adjusted as well as can be?

Writes one_shot_second_order.png.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

import minisparse as ms
from minisparse.experiments.one_shot_plots import one_shot_curves
from minisparse.experiments.second_order import METHODS, one_shot, table
from minisparse.experiments.theme import png
from minisparse.methods.dense import Dense
from minisparse.methods.reconstruct.layerwise import damped, output_error
from minisparse.methods.reconstruct.obc import compensated
from minisparse.methods.reconstruct.sparsegpt import by_blocks, inverse_factor, lowest_of_block

data = ms.data.load("digits")
raw = one_shot(data, sparsities=(0.5, 0.7, 0.8), seeds=range(5))
print(table(raw))

mean = data.train_x.mean(axis=0)
centred = replace(data, train_x=data.train_x - mean, test_x=data.test_x - mean)
quick = {name: METHODS[name] for name in ("random", "magnitude", "wanda, in layers", "obd", "sparsegpt")}
print("\nLeNet-300-100, pixels centred")
mild = one_shot(centred, "lenet-300-100", (0.5, 0.7, 0.8), seeds=range(8), methods=quick)
print(table(mild))
curves = {"64-48-32-10 on digits": raw, "LeNet-300-100, pixels centred": mild}
Path("one_shot_second_order.png").write_bytes(png(one_shot_curves(curves)))

network = ms.train(ms.models.build("lenet-300-100", data, seed=0), data, Dense(), epochs=30, seed=0).network
layer = network.prunable()["fc2"]
network.forward(data.train_x)
rows = layer.rows[:, 0].astype(np.float64)
gram, weight = rows.T @ rows / len(rows), layer.weight.dense().astype(np.float64)
hessian = damped(gram, 0.01)
total = output_error(weight, gram)

print("\nerror of the 300 -> 100 layer's outputs, as a share of the outputs' energy, one mask per line")
print(f"{'sparsity':>9}{'left alone':>12}{'sparsegpt':>12}{'best':>12}")
for sparsity in (0.5, 0.7, 0.8, 0.9):
    kept = round((1 - sparsity) * weight.size)
    choose = lowest_of_block(np.ones(weight.shape, dtype=bool), kept)
    mask, adjusted = by_blocks(weight, inverse_factor(gram, 0.01), choose, every=128, block=128)
    choices = (np.where(mask, weight, 0), adjusted, compensated(weight, hessian, mask))
    errors = (output_error(values - weight, gram) / total for values in choices)
    print(f"{sparsity:9.0%}" + "".join(f"{error:12.5f}" for error in errors))
