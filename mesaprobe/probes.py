"""Public face of the probes: `from mesaprobe.probes import ridge_sweep`, on anyone's activations as plain arrays.

>>> import numpy as np
>>> activations = np.random.default_rng(0).normal(size=(3, 200, 16))  # [site, sample, d]
>>> ridge_sweep(activations, activations[2, :, 0], folds=np.arange(200) % 5).r2[:, 0].argmax()
np.int64(2)
"""

from mesaprobe.instruments.activations import (
    Activations,
    Site,
    collect,
    collect_activations,
    collect_city_tokens,
    head_sites,
    instance_keys,
    mlp_sites,
    residual_sites,
)
from mesaprobe.instruments.probes import (
    ALPHAS,
    PENALTIES,
    BilinearClassifier,
    BilinearRegressor,
    LinearProbe,
    OnlineCode,
    RidgeProbe,
    RidgeProbes,
    RidgeSweep,
    SoftmaxProbe,
    cross_fit_softmax,
    fit_softmax_probe,
    mlp_probe,
    online_class_code,
    online_value_code,
    ridge_sweep,
)

__all__ = [
    "ALPHAS",
    "PENALTIES",
    "Activations",
    "BilinearClassifier",
    "BilinearRegressor",
    "LinearProbe",
    "OnlineCode",
    "RidgeProbe",
    "RidgeProbes",
    "RidgeSweep",
    "Site",
    "SoftmaxProbe",
    "collect",
    "collect_activations",
    "collect_city_tokens",
    "cross_fit_softmax",
    "fit_softmax_probe",
    "head_sites",
    "instance_keys",
    "mlp_probe",
    "mlp_sites",
    "online_class_code",
    "online_value_code",
    "residual_sites",
    "ridge_sweep",
]
