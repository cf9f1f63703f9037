"""Statistics whose unit is the instance (method.md section 4); numpy, scipy and scikit-learn only.

| file | what |
|---|---|
| folds | folds by instance, nested; strata of samples |
| blocks | which instances may swap residuals in a permutation test |
| max_t | one p-value for a table of sites x targets, adjusted ones for its cells |
| sign_flip | paired differences: one p-value, or a table for max-T |
| multiplicity | Benjamini-Hochberg across lines, Holm across contrasts |
| bootstrap | cluster bootstrap intervals, of many cells on the same resamples |
| boosted_trees | g(Z): what the nuisance tells; cross-fitting |
| conditional | usable information beyond Z, direct and residualised |
| net_score | information beyond every control |
| control_tasks | Hewitt and Liang's labels, from a hash of local features |
| mdl | online codes (by probes: `instruments.probes.online_code`) |
| power | what a test could have seen |
| calibration | whether p-values are uniform under a null |
"""

from mesaprobe.statistics.blocks import Blocks, instance_blocks
from mesaprobe.statistics.boosted_trees import (
    BoostedTrees,
    cross_fit,
    cross_fit_log_odds,
    cross_fit_means,
    fit_log_odds_trees,
    fit_mean_trees,
    label_residuals,
    log_losses,
    log_odds_sharpness,
)
from mesaprobe.statistics.bootstrap import (
    Estimate,
    Estimates,
    bootstrap_mean,
    bootstrap_of_sums,
    bootstrap_ratio,
    bootstrap_ratios,
    cluster_bootstrap,
    instance_sums,
    resampled_counts,
)
from mesaprobe.statistics.calibration import Calibration, p_value_calibration
from mesaprobe.statistics.conditional import (
    gaussian_information,
    residualised_predictions,
    signs_agree,
    usable_information,
)
from mesaprobe.statistics.control_tasks import ControlTask, cell_hashes, make_control_task
from mesaprobe.statistics.folds import OuterSplit, Split, instance_folds, nested_splits, splits, strata_codes
from mesaprobe.statistics.max_t import (
    MaxT,
    NullTable,
    max_t,
    permutation_null,
    residual_max_t,
    residual_null,
    studentised,
)
from mesaprobe.statistics.mdl import compression, gaussian_code, online_blocks, online_code_length
from mesaprobe.statistics.multiplicity import benjamini_hochberg, holm
from mesaprobe.statistics.net_score import Losses, NetScore, instance_losses, net_score
from mesaprobe.statistics.power import (
    PowerCurve,
    detectable_by_planting,
    detectable_from_null,
    minimum_detectable_effect,
    planted_mean,
)
from mesaprobe.statistics.sign_flip import sign_flip_null, sign_flip_p

__all__ = [
    "Blocks",
    "BoostedTrees",
    "Calibration",
    "ControlTask",
    "Estimate",
    "Estimates",
    "Losses",
    "MaxT",
    "NetScore",
    "NullTable",
    "OuterSplit",
    "PowerCurve",
    "Split",
    "benjamini_hochberg",
    "bootstrap_mean",
    "bootstrap_of_sums",
    "bootstrap_ratio",
    "bootstrap_ratios",
    "cell_hashes",
    "cluster_bootstrap",
    "compression",
    "cross_fit",
    "cross_fit_log_odds",
    "cross_fit_means",
    "detectable_by_planting",
    "detectable_from_null",
    "fit_log_odds_trees",
    "fit_mean_trees",
    "gaussian_code",
    "gaussian_information",
    "holm",
    "instance_blocks",
    "instance_folds",
    "instance_losses",
    "instance_sums",
    "label_residuals",
    "log_losses",
    "log_odds_sharpness",
    "make_control_task",
    "max_t",
    "minimum_detectable_effect",
    "nested_splits",
    "net_score",
    "online_blocks",
    "online_code_length",
    "p_value_calibration",
    "permutation_null",
    "planted_mean",
    "resampled_counts",
    "residual_max_t",
    "residual_null",
    "residualised_predictions",
    "sign_flip_null",
    "sign_flip_p",
    "signs_agree",
    "splits",
    "strata_codes",
    "studentised",
    "usable_information",
]
