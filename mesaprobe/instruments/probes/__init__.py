"""Probes: what can be read from activations by a weak reader, for all sites at once.

Estimators in scikit-learn's manner (`RidgeProbe`, `LinearProbe`, `BilinearClassifier`, `BilinearRegressor`, and
`mlp_probe` as sensitivity), engines that fit all sites together (`ridge_sweep`, `cross_fit_softmax`), and description
lengths as tie-breaker between sites (`online_class_code`, `online_value_code`). They take plain arrays, from any
network. What is decodable need not be used: see method.md section 4 for the controls.
"""

from mesaprobe.instruments.probes.bilinear import BilinearClassifier, BilinearRegressor
from mesaprobe.instruments.probes.mlp import mlp_probe
from mesaprobe.instruments.probes.online_code import OnlineCode, online_class_code, online_value_code
from mesaprobe.instruments.probes.ridge import ALPHAS, RidgeProbes, RidgeSweep, ridge_sweep
from mesaprobe.instruments.probes.ridge_estimator import RidgeProbe
from mesaprobe.instruments.probes.softmax import (
    PENALTIES,
    LinearProbe,
    SoftmaxProbe,
    cross_fit_softmax,
    fit_softmax_probe,
)

__all__ = [
    "ALPHAS",
    "PENALTIES",
    "BilinearClassifier",
    "BilinearRegressor",
    "LinearProbe",
    "OnlineCode",
    "RidgeProbe",
    "RidgeProbes",
    "RidgeSweep",
    "SoftmaxProbe",
    "cross_fit_softmax",
    "fit_softmax_probe",
    "mlp_probe",
    "online_class_code",
    "online_value_code",
    "ridge_sweep",
]
