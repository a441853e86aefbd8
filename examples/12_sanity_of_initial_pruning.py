"""Pruning at initialisation: shuffle the mask within layers, draw new weights, and see what that costs.

Of SNIP, GraSP and SynFlow the counts per layer matter and the places do not; of a mask found after training
they do. `minisparse sanity` has more methods, sparsities and seeds. Writes sanity_of_initial_pruning.png.

J. Frankle, G. K. Dziugaite, D. M. Roy, M. Carbin. Pruning Neural Networks at Initialization: Why Are We
Missing the Mark? ICLR 2021. arXiv:2009.08576, figures 3 to 5.
"""

import matplotlib

matplotlib.use("Agg")

from minisparse.experiments import sanity
from minisparse.experiments.pai_plots import accuracy_by_control
from minisparse.experiments.runner import execute
from minisparse.experiments.summary import mean

LABELS = ("random", "magnitude-init", "snip", "grasp", "synflow", "magnitude-trained")

made = sanity.cases(LABELS, (0.95, 0.98), seeds=(0, 1, 2), training={"epochs": 8, "batch": 32})
outcomes = [execute(case.spec) for case in made]
cells = sanity.cells(made, outcomes)
for cell in cells:
    accuracy = f"{100 * cell.mean:5.1f} +- {100 * cell.spread:4.1f} %"
    print(f"{cell.label:18} {cell.control:8} {cell.sparsity:5.0%}: {accuracy}")
print("\n".join(sanity.sentences(cells)))
chance = mean(outcome.chance for outcome in outcomes)
accuracy_by_control(cells, chance).savefig("sanity_of_initial_pruning.png", dpi=110)
