"""A small non-linear probe, as sensitivity: what a linear reader misses because the code is not linear."""

from typing import Literal

from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

HIDDEN = 32
"""Hidden units (method.md section 5, E5)."""


def mlp_probe(task: Literal["values", "classes"], *, seed: int, weight_decay: float = 1e-3) -> Pipeline:
    """Standardised columns, then one hidden layer of 32 units; scikit-learn's Adam. Give values in units of 1.

    It stops when its own loss no longer falls: scikit-learn's early stopping would hold out samples of instances
    that the fit has seen. What it decodes it may have computed itself, so it is shown beside the linear probes and
    with their controls, never in their place.

    >>> mlp_probe("values", seed=0)[-1].hidden_layer_sizes
    (32,)
    """
    network = MLPRegressor if task == "values" else MLPClassifier
    options = {"alpha": weight_decay, "max_iter": 100, "tol": 1e-3, "n_iter_no_change": 5, "random_state": seed}
    return make_pipeline(StandardScaler(), network(hidden_layer_sizes=(HIDDEN,), **options))
