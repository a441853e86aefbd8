"""The state of sparsity at a small scale: gradual magnitude pruning against methods that learn what stays.

LeNet-300-100 on the digits, all methods trained for the same number of epochs. Variational dropout and L0
find their sparsity: what is swept is the price of a weight. `minisparse compare state-of-sparsity --data-dir
DIR` is the same on MNIST. Writes state_of_sparsity.png.

T. Gale, E. Elsen, S. Hooker. The State of Sparsity in Deep Neural Networks. arXiv:1902.09574, figure 3.
"""

import matplotlib

matplotlib.use("Agg")

from minisparse.experiments.plots import accuracy_against_sparsity
from minisparse.experiments.runner import execute
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.summary import summarise

TRAINING = {"epochs": 20, "batch": 32}
ADAM = {"optimizer": "adam", "rate": "cosine:lr=0.002"}
CUBIC = "cubic:begin=0.2,end=0.7"

specs = []
for seed in range(2):
    specs.append(RunSpec("dense", seed=seed, **TRAINING))
    for sparsity in ("0.8", "0.95", "0.99", "0.995"):
        for method in ("magnitude", "random"):
            settings = (("schedule", CUBIC), ("sparsity", sparsity))
            specs.append(RunSpec(method, settings, seed=seed, **TRAINING))
    for strength in ("0.03", "0.3", "1", "3"):
        chosen = (("strength", strength),)
        specs.append(RunSpec("variational-dropout", chosen, seed=seed, **TRAINING, **ADAM))
    for strength in ("0.03", "0.3", "1", "3"):
        chosen = (("strength", strength), ("rate", "10"))
        specs.append(RunSpec("l0", chosen, seed=seed, **TRAINING, **ADAM))

outcomes = [execute(spec) for spec in specs]
for row in summarise(outcomes):
    accuracy = f"{100 * row.accuracy:5.1f} +- {100 * row.spread:.1f} %"
    print(f"{row.method:20} {row.settings:45} {row.sparsity:7.2%} sparse: {accuracy}")
accuracy_against_sparsity(outcomes).savefig("state_of_sparsity.png", dpi=110)
