"""A small zoo: one network made sparse in seven ways, and the four numbers that are not one.

Zeros in the mask, bytes as stored, multiply-adds in theory, and measured time, next to the accuracy, for a
wide perceptron on the digits, batch 256. A masked network is as large and as slow as a dense one;
`ms.compress` stores each layer in the format that is fastest on this machine, `ms.shrink` removes whole
units. Writes model_zoo.png.

D. Blalock et al. What is the State of Neural Network Pruning? MLSys 2020. arXiv:2003.03033 asks for all of
them.
"""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter

import minisparse as ms
from minisparse.experiments.inspect import forward_seconds, layer_table, others
from minisparse.nn import CrossEntropy
from minisparse.nn.lr import Cosine
from minisparse.sparsity.allocation import Uniform
from minisparse.sparsity.pattern import NM
from minisparse.training.run import evaluate

BATCH = 256
METHODS = {
    "dense": ms.Dense(),
    "magnitude 90 %": ms.Magnitude(0.9),
    "magnitude 98 %": ms.Magnitude(0.98),
    "RigL 95 %": ms.RigL(0.95, every=20),
    "SRigL 95 %": ms.SRigL(0.95, every=20),
    "2:4": ms.Magnitude(0.5, allocation=Uniform(), pattern=NM(2, 4)),
    "filters 90 %": ms.FilterNorm(0.9),
}


def size(network: ms.nn.Network) -> int:
    """Bytes of all parameters as they are stored."""
    weights = [layer.weight for layer in network.prunable().values()]
    return sum(getattr(w, "bytes", 4 * w.size) for w in weights) + sum(a.nbytes for a in others(network))


data = ms.data.load("digits")
rows = []
for name, method in METHODS.items():
    network = ms.models.build("mlp:64-1024-1024-10", data, seed=0)
    run = ms.train(network, data, method, epochs=10, rate=Cosine(0.1), seed=0)
    # units that no path uses leave first; then each layer takes the format that is fastest at this batch
    small = ms.compress(ms.remove_dead(run.network), batch=BATCH)
    accuracy = evaluate(small, CrossEntropy(), data.test_x, data.test_y)[1]
    macs = sum(row.macs for row in layer_table(small))
    formats = " ".join(type(layer.weight).__name__ for layer in small.prunable().values())
    masked_time, time = (1e3 * forward_seconds(net, BATCH, repeats=30) for net in (run.network, small))
    rows.append((name, run.sparsity, accuracy, size(small) / 1e3, macs / 1e3, masked_time, time, formats))

print(f"{'network':15} zeros  accuracy      kB  kMACs  ms masked  ms stored  formats")
for name, zeros, accuracy, kilobytes, macs, masked_time, time, formats in rows:
    numbers = f"{kilobytes:8,.0f} {macs:6,.0f} {masked_time:10.2f} {time:10.2f}"
    print(f"{name:15} {zeros:5.1%}   {accuracy:5.1%} {numbers}  {formats}")

figure, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained", sharey=True)
labels = ("kilobytes stored", "thousand multiply-adds per sample", f"ms per {BATCH} samples, measured")
for at, column, label in zip(axes, (3, 4, 6), labels, strict=True):
    for place, row in enumerate(rows):
        at.plot(row[column], 100 * row[2], "osD^vPX"[place], color=f"C{place}", label=row[0], markersize=8)
    if column == 6:
        for place, row in enumerate(rows):
            at.plot(row[5], 100 * row[2], "osD^vPX"[place], color=f"C{place}", fillstyle="none", markersize=8)
    at.set(xscale="log", xlabel=label)
    at.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    at.xaxis.set_major_formatter("{x:g}")
    at.xaxis.set_minor_formatter(NullFormatter())
axes[0].set_ylabel("test accuracy (%)")
axes[2].set_title("hollow: the masked network, which is not faster", fontsize=9)
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(rows))
figure.savefig("model_zoo.png", dpi=110)
