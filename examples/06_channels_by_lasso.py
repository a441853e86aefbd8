"""Remove channels of trained networks, retrain nothing: what choosing by LASSO is worth, and the refit.

LeNet-5 on the digits loses 30 to 80 % of the channels of every hidden layer. Rules choose at random, by the
size of the filters, by the size of the weights that read them, or by a LASSO on what those weights put out;
then the reading layer stays as it is, or its weights are refitted by least squares. Writes
channels_by_lasso.png.
"""

from pathlib import Path

import minisparse as ms
from minisparse.experiments.channels import one_shot_channels
from minisparse.experiments.one_shot_plots import one_shot_curves
from minisparse.experiments.second_order import table
from minisparse.experiments.theme import png

data = ms.data.load("digits")
results = one_shot_channels(data, "lenet-5", (0.3, 0.5, 0.7, 0.8), seeds=range(8))
print("test accuracy (%) without any retraining, by share of the channels removed")
print(table(results))
figure = one_shot_curves({"LeNet-5 on digits": results}, "channels removed")
Path("channels_by_lasso.png").write_bytes(png(figure))

mean = {(r.method, r.sparsity): r.mean for r in results}
for share in (0.3, 0.5, 0.7, 0.8):
    gain = mean["lasso, refit", share] - mean["filters", share]
    refit = mean["filters, refit", share] - mean["filters", share]
    print(f"{share:.0%} removed: LASSO and refit above L1 filters by {100 * gain:+.1f} points in the mean")
    print(f"    of which the same refit gives the filters {100 * refit:+.1f}")
