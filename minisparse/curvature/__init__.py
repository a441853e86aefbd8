"""Second-order quantities: functions (network, loss, x, target, ...) -> trees by parameter name.

All are taken in evaluation mode, where samples do not depend on each other, and of the mean loss over
the batch. Gradients and products have the parameters' type; sums of squares are float64.
"""

from minisparse.curvature.fisher import (
    empirical_fisher_blocks,
    empirical_fisher_diagonal,
    empirical_fisher_matrix,
    fisher_diagonal,
    fisher_diagonal_sampled,
)
from minisparse.curvature.full import hessian
from minisparse.curvature.ggn import ggn_diagonal, ggn_matrix, ggn_vector_product, jacobian
from minisparse.curvature.gradient import gradient, per_sample_gradients
from minisparse.curvature.gram import Gram, input_grams
from minisparse.curvature.hessian_diagonal import exact_diagonal
from minisparse.curvature.hutchinson import hutchinson
from minisparse.curvature.hvp import hessian_operator, hvp, hvps
from minisparse.curvature.inverse import (
    cholesky_inverse,
    damped_cholesky,
    inverse_by_blocks,
    inverse_by_vectors,
    remove,
)
from minisparse.curvature.kfac import KroneckerFactors, kfac, kfac_empirical, kfac_sampled
from minisparse.curvature.lecun import lecun_diagonal
from minisparse.curvature.modes import MODES, hessian_diagonal
from minisparse.curvature.spectrum import hessian_eigenpairs, lanczos, spectral_density, top_eigenpairs
from minisparse.curvature.tree import Tree, flatten, inner, unflatten

__all__ = [
    "MODES", "Gram", "KroneckerFactors", "Tree", "cholesky_inverse", "damped_cholesky",
    "empirical_fisher_blocks", "empirical_fisher_diagonal", "empirical_fisher_matrix", "exact_diagonal",
    "fisher_diagonal", "fisher_diagonal_sampled", "flatten", "ggn_diagonal", "ggn_matrix",
    "ggn_vector_product", "gradient", "hessian", "hessian_diagonal", "hessian_eigenpairs",
    "hessian_operator", "hutchinson", "hvp", "hvps", "inner", "input_grams", "inverse_by_blocks",
    "inverse_by_vectors", "jacobian", "kfac", "kfac_empirical", "kfac_sampled", "lanczos",
    "lecun_diagonal", "per_sample_gradients", "remove", "spectral_density", "top_eigenpairs", "unflatten",
]  # fmt: skip
