"""Prune a network while it trains, and look at what is left.

Gradual magnitude pruning on the embedded digits: the cubic schedule as asked for and as obtained, the
accuracy along the way, and the input pixels that keep connections. Writes prune_by_magnitude.png.
"""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import minisparse as ms
from minisparse.nn.lr import Cosine
from minisparse.sparsity.schedule import Cubic

data = ms.data.load("digits")
network = ms.models.build("lenet-300-100", data, seed=0)
schedule = Cubic(begin=0.2, end=0.7)
method = ms.Magnitude(sparsity=0.95, schedule=schedule)
run = ms.train(network, data, method, epochs=30, rate=Cosine(lr=0.2), seed=0)

print(f"{run.sparsity:.4f} of the weights are zero, test accuracy {run.accuracy:.3f}")
for name, layer in run.network.prunable().items():
    weight = layer.weight
    print(f"  {name}: {weight.kept:6,} of {weight.size:6,} weights kept")

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
steps = [record.step for record in run.history]
asked = schedule.curve(run.history[-1].step, 0.95)
left.step(*zip(*asked, strict=True), where="post", label="asked for")
left.plot(steps, [record.sparsity for record in run.history], "o", ms=3, label="obtained")
left.set(xlabel="step", ylabel="sparsity", title="Cubic schedule")
left.legend()
middle.plot(steps, [record.accuracy for record in run.history])
middle.set(xlabel="step", ylabel="test accuracy", ylim=(0.8, 1), title="Accuracy along the way")
kept = run.network.prunable()["fc1"].weight.mask.sum(axis=0).reshape(8, 8)
right.imshow(kept, cmap="magma")
right.set(title="Connections kept per input pixel", xticks=[], yticks=[])
figure.savefig("prune_by_magnitude.png", dpi=120)
