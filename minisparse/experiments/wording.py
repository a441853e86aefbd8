"""The texts of the report that do not depend on results: section names, glossary, captions."""

from __future__ import annotations

ANCHORS = (
    ("verdict", "verdict"),
    ("accuracy", "accuracy"),
    ("table", "all numbers"),
    ("layers", "layers"),
    ("masks", "masks"),
    ("training", "training"),
    ("wrong", "what went wrong"),
    ("methods", "methods"),
    ("reproduce", "do it again"),
    ("words", "words"),
)

GLOSSARY = (
    (
        "sparsity",
        "Share of the prunable weights that are zero and stay zero. 90 % sparsity keeps one weight in "
        "ten. Biases are not pruned.",
    ),
    (
        "density",
        "1 - sparsity: the share that is kept.",
    ),
    (
        "mask",
        "A table of yes and no in the shape of a weight matrix: which weights exist.",
    ),
    (
        "MACs",
        "Multiply-accumulate operations for one sample, counted on the mask; FLOPs are twice as many. "
        "They are theory: what a machine would do that skips every zero at no cost.",
    ),
    (
        "bytes",
        "Storage of all parameters. dense: every number. csr: the kept numbers, a column index for "
        "each, a pointer per row. bitmask: the kept numbers, and one bit for every entry. In csr an "
        "index costs as much as a number, so it pays from 50 % sparsity on, and then slowly.",
    ),
    (
        "compression",
        "All parameters divided by the kept ones; biases count in both.",
    ),
    (
        "collapse",
        "The outputs no longer depend on the inputs: the kept weights leave no path through the "
        "network, or the units of a layer are silent on all data. Training cannot repair it; the "
        "network gives one answer to everything.",
    ),
    (
        "diverged",
        "A loss, gradient or weight became infinite or not a number, and the run was stopped there.",
    ),
    (
        "failed",
        "The run ended in an error. The next comparison tries it again.",
    ),
    (
        "seed",
        "The number that decides the start weights, the order of the batches and every other draw.",
    ),
    (
        "\xb1",
        "Sample standard deviation over the seeds. Of a few seeds it is a rough guide and no confidence"
        " interval.",
    ),
    (
        "allocation",
        "How the kept weights are shared among layers: by one ranking over all of them (global), or "
        "each layer gets a share that its shape decides (uniform, Erdos-Renyi, ERK).",
    ),
)

SAME_START = (
    "Runs of one seed start from the same weights and see the training samples in the same order; "
    "accuracy is measured after the last step, on samples kept apart."
)

FOUR_NUMBERS = (
    "Ten times sparser can mean four things: zeros in the mask, bytes stored, operations in theory, "
    "time measured. They differ, so each has columns of its own, and none stands for another."
)

NOT_FASTER = (
    "A mask by itself makes nothing faster: masked training multiplies the zeros as well and takes as "
    "much memory as dense training. The gain comes when a network is stored in a sparse format and run "
    "by kernels made for it, and in a network as small as this one even that is little."
)

REPEATS = (
    "With the same versions, processor type and number of threads, the same seeds give the same bits. "
    "Elsewhere last digits differ, and after some hundred steps accuracies by fractions of a point. "
    "Finished runs stay in the results folder and only missing ones are made; --fresh makes all of them"
    " again. results.csv has a line for each run, results.json has everything."
)

COLUMNS = (
    "Means over seeds, \xb1 sample standard deviation; vs dense: points of accuracy. Bytes and MACs are of"
    " the whole network, MACs for one sample. Training is seconds per run, forward is milliseconds for "
    "256 samples with the weights stored as in training."
)

FOOT = "Made by minisparse. This file is complete in itself: no script, nothing loaded from elsewhere."

# name of a figure -> (description for those who do not see it, caption)
CAPTIONS = {
    "accuracy": (
        "Curves of test accuracy against sparsity, one per method, with the dense network as a band.",
        "Each point is a mean over seeds, its bar the standard deviation; the band is the dense "
        "network. The axis is logarithmic in what is kept, since from 98 % to 99.8 % nine of ten "
        "remaining weights go. Red crosses are runs whose outputs no longer depend on the inputs. "
        "Points of one sparsity stand side by side only to be told apart.",
    ),
    "layers": (
        "Density of every layer for every method, at two sparsities.",
        "The same number of weights, shared out differently. The dashed line is the network as a whole;"
        " layers to its left are sparser than that, layers to its right denser. A layer that has lost "
        "everything is a hollow mark at the left edge.",
    ),
    "masks": (
        "For every method an image of how often each pixel is read, and the mask of the first layer.",
        "Above, how many units read each pixel of the image, from hardly any (pale on white, dark on "
        "black) to most. Below, the mask of the first layer, a dot for each kept weight: empty columns "
        "are pixels nobody reads, empty rows are units that were given up.",
    ),
    "wires": (
        "Every kept weight at the highest sparsity as a line between units.",
        "All that is left at the highest sparsity: inputs on the left, outputs on the right, a line for"
        " each kept weight. Coloured lines lie on a path from an input to an output, grey ones lead "
        "nowhere. A network collapses not because nothing is left, but because what is left does not "
        "meet.",
    ),
    "training": (
        "Test accuracy and sparsity of one run per method against training steps.",
        "One seed. Some methods are sparse from the first step, some remove weights little by little, "
        "and some train to the end, prune, go back and train again, which takes as many times longer.",
    ),
}

# name of a data set -> who made it
DATA = {
    "digits": (
        "E. Alpaydin, C. Kaynak. Optical Recognition of Handwritten Digits. UCI Machine Learning "
        "Repository, 1998. doi:10.24432/C50P49. Licence CC BY 4.0. Of its test set, every fifth image "
        "of a class is kept for testing."
    ),
    "mnist": ("Y. LeCun, C. Cortes, C. J. C. Burges. The MNIST database of handwritten digits, 1998."),
    "fashion-mnist": (
        "H. Xiao, K. Rasul, R. Vollgraf. Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine "
        "Learning Algorithms. 2017. arXiv:1708.07747"
    ),
    "cifar-10": (
        "A. Krizhevsky. Learning Multiple Layers of Features from Tiny Images. Technical report, "
        "University of Toronto, 2009."
    ),
}
