"""Gradual pruning: the cubic schedule against other ways to the same sparsity in the same time.

LeNet-300-100 on the digits goes to 98 % along five schedules with equally many training steps, by magnitude
and at random. When to prune matters as much as what. Writes schedules.png.

M. Zhu, S. Gupta. To prune, or not to prune. arXiv:1710.01878, figure 1.
"""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import minisparse as ms
from minisparse.nn.lr import Cosine
from minisparse.sparsity import parse_schedule

SCHEDULES = {
    "cubic": "cubic:begin=0.1,end=0.7",
    "linear": "linear:begin=0.1,end=0.7",
    "five rounds": "rounds:rounds=5,begin=0.1,end=0.7",
    "at once, at 0.7": "one-shot:at=0.7",
    "before training": "one-shot:at=0",
}
SPARSITY, SEEDS = 0.98, range(3)
data = ms.data.load("digits")

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
for place, (name, text) in enumerate(SCHEDULES.items()):
    schedule = parse_schedule(text)
    for method, shift in ((ms.Magnitude, -0.15), (ms.Random, 0.15)):
        runs = [
            ms.train(
                ms.models.build("lenet-300-100", data, seed=seed), data, method(SPARSITY, schedule),
                epochs=20, rate=Cosine(0.1), seed=seed,
            )
            for seed in SEEDS
        ]  # fmt: skip
        accuracy = 100 * np.array([run.accuracy for run in runs])
        look = {"color": f"C{place}", "marker": "o" if method is ms.Magnitude else "x"}
        right.errorbar(accuracy.mean(), place + shift, xerr=accuracy.std(ddof=1), capsize=3, **look)
        print(f"{name:16} {method.__name__:10} {accuracy.mean():5.1f} +- {accuracy.std(ddof=1):.1f} %")
        if method is ms.Magnitude:
            steps = [record.step for record in runs[0].history]
            curve = np.mean([[record.accuracy for record in run.history] for run in runs], axis=0)
            asked = [(0, 0.0), *schedule.curve(steps[-1], SPARSITY), (steps[-1], SPARSITY)]
            left.step(*np.array(asked).T, where="post", color=f"C{place}", label=name)
            middle.plot(steps, 100 * curve, color=f"C{place}")
left.set(xlabel="step", ylabel="sparsity", title="Sparsity asked for")
figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(SCHEDULES))
middle.set(xlabel="step", ylabel="test accuracy (%)", ylim=(60, 100), title="Magnitude, along the way")
right.set(xlabel="test accuracy (%)", title="At the end (o magnitude, x random)")
right.set_yticks(range(len(SCHEDULES)), SCHEDULES)
right.invert_yaxis()
figure.savefig("schedules.png", dpi=110)
