"""How long a circle becomes on its way through a random sparse network, and what the theory bounds it by.

Weights drawn for dense layers lose the signal in sparse ones, layer by layer; with the variance of each
unit's own fan-in nothing is lost. The same as `minisparse study trajectory`. Writes trajectory_length.png.

I. Price, J. Tanner. Trajectory growth lower bounds for random sparse deep ReLU networks. arXiv:1911.10651.
"""

import matplotlib

matplotlib.use("Agg")

from minisparse.experiments.theory.trajectory import study

found = study(seeds=range(10))
for row in found.rows:
    print(
        "  ".join(
            f"{key} {value:.3g}" if isinstance(value, float) else str(value) for key, value in row.items()
        )
    )
print("\n".join(found.words))
found.figure.savefig("trajectory_length.png", dpi=110)
