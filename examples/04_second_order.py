"""What is a weight worth? Forecast it by first and second order, then delete it and see.

Two small networks are trained on the digits until the gradient is nearly 0. Every single weight is deleted,
alone and with the update of Optimal Brain Surgeon, and the true change of the loss is compared with what
the criteria forecast. Then the spectrum of the Hessian before and after training, and the pixels that
criteria keep at 80 % sparsity. Writes second_order_prediction.png, hessian_spectrum.png and
removed_by_criterion.png.
"""

import matplotlib

matplotlib.use("Agg")

import minisparse as ms
from minisparse.experiments.curvature_plots import (
    hessian_spectrum,
    prediction,
    removed_by_criterion,
    spectrum,
)
from minisparse.experiments.deletions import deletions, spearman
from minisparse.experiments.second_order import prune_now
from minisparse.nn import CrossEntropy
from minisparse.nn.lr import Cosine
from minisparse.rng import generator
from minisparse.sparsity.allocation import Uniform
from minisparse.sparsity.schedule import OneShot
from minisparse.training.run import evaluate

data = ms.data.load("digits")
x, target, loss = data.train_x, data.train_y, CrossEntropy()


def trained(network: ms.nn.Network) -> ms.nn.Network:
    """Thirty epochs in small batches, then 500 steps on all samples at once."""
    run = ms.train(network, data, ms.Dense(), epochs=30, rate=Cosine(0.1))
    return ms.train(run.network, data, ms.Dense(), epochs=500, batch=len(x), rate=Cosine(0.5)).network


starts = {name: ms.models.build(f"mlp:64-24-10:{name}", data, seed=0) for name in ("tanh", "relu")}
networks = {name: trained(start) for name, start in starts.items()}

found = {name: deletions(network, loss, x, target) for name, network in networks.items()}
for name, deleted in found.items():
    print(f"{name}: rank correlation of forecast and true change over {len(deleted.alone):,} weights")
    for criterion in deleted.forecasts:
        print(f"  {criterion:13} {deleted.correlation(criterion):6.3f}")
    guess = generator(0, "guess").random(len(deleted.alone))
    print(f"  {'random':13} {spearman(guess, deleted.alone):6.3f}")
    share = deleted.adjusted.mean() / deleted.alone.mean()
    print(f"  with the update of OBS a deletion costs {100 * share:.1f} % of what it costs alone")
prediction(found).savefig("second_order_prediction.png", dpi=120)

rng = generator(0, "spectrum")
spectra = {
    "before training": spectrum(starts["tanh"], loss, x, target, rng),
    "after training": spectrum(networks["tanh"], loss, x, target, rng),
}
hessian_spectrum(spectra).savefig("hessian_spectrum.png", dpi=120)

now, alike = OneShot(0.0), Uniform()
methods = {
    "random": ms.Random(0.8, now, alike),
    "magnitude": ms.Magnitude(0.8, now, alike),
    "wanda": ms.Wanda(0.8, now, allocation=alike),
    "obd": ms.OBD(0.8, now, alike),
    "sparsegpt": ms.SparseGPT(0.8, now, allocation=alike),
    "lobs": ms.LOBS(0.8, now, allocation=alike),
    "obs": ms.OBS(0.8, now, allocation=alike),
}
pruned = {name: prune_now(networks["relu"], data, method, seed=0) for name, method in methods.items()}
print("relu, 80 % of the weights removed at once, nothing trained afterwards: test accuracy")
for name, network in {"dense": networks["relu"], **pruned}.items():
    print(f"  {name:13} {evaluate(network, loss, data.test_x, data.test_y)[1]:.3f}")
removed_by_criterion(pruned, x).savefig("removed_by_criterion.png", dpi=120)
