"""What is called detectable at 80 % power is detected in 80 % of simulations; calibration counts right."""

import numpy as np
import pytest

from mesaprobe.statistics import (
    bootstrap_ratios,
    detectable_by_planting,
    detectable_from_null,
    instance_blocks,
    minimum_detectable_effect,
    p_value_calibration,
    planted_mean,
    residual_max_t,
    sign_flip_p,
)


def detection_rate(draws: int, seed: int) -> float:
    """How often a mean of the closed form's size is found by the sign-flip test; skewed differences."""
    rng = np.random.default_rng(seed)
    found = 0
    for _ in range(draws):
        differences = rng.exponential(size=200) - 1
        error = float(bootstrap_ratios(differences, np.ones(200), rng, resamples=200).error)
        effect = minimum_detectable_effect(error)
        fresh = rng.exponential(size=200) - 1
        found += sign_flip_p(fresh + effect, rng, flips=199) <= 0.05
    return found / draws


def test_the_closed_form_is_found_four_times_in_five() -> None:
    assert abs(detection_rate(400, seed=0) - 0.8) < 4 * np.sqrt(0.8 * 0.2 / 400)


@pytest.mark.slow
def test_the_closed_form_is_found_four_times_in_five_of_four_thousand() -> None:
    assert abs(detection_rate(4000, seed=1) - 0.8) < 0.03


def table_detection_rate(draws: int, seed: int) -> float:
    """The same for a cell of a max-T table, whose critical value comes from its own permutations."""
    rng = np.random.default_rng(seed)
    groups, found = np.repeat(np.arange(1000), 3), 0
    blocks = instance_blocks(groups)

    def draw(effect: float) -> tuple[np.ndarray, np.ndarray]:
        predictions = rng.normal(size=(6, 1000, 1)).repeat(3, axis=1)
        residuals = (rng.normal(size=(1000, 1)) + 0.3 * rng.normal(size=(1000, 1))).repeat(3, axis=0)
        return residuals + effect * predictions[0], predictions

    critical = residual_max_t(*draw(0.0), blocks, rng, permutations=499).critical(0.05)
    # The slope of r on a prediction of variance 1 has error sd(r) / sqrt(instances).
    effect = minimum_detectable_effect(np.sqrt(1.09 / 1000), critical=critical)
    for _ in range(draws):
        found += residual_max_t(*draw(effect), blocks, rng, permutations=199).adjusted[0, 0] <= 0.05
    return found / draws


def test_the_critical_value_of_a_table_gives_its_power() -> None:
    assert abs(table_detection_rate(200, seed=2) - 0.8) < 0.12


def test_planting_agrees_with_the_closed_form() -> None:
    rng = np.random.default_rng(3)
    differences = rng.normal(size=150)
    closed = minimum_detectable_effect(float(differences.std()) / np.sqrt(150))
    curve = detectable_by_planting(
        planted_mean(differences), closed * np.array([0, 0.5, 0.8, 1.2, 1.6]), rng, draws=150
    )
    assert curve.detectable == pytest.approx(closed, rel=0.15)
    assert curve.detected[0] < 0.12
    assert detectable_by_planting(planted_mean(differences), [0.0, 0.1 * closed], rng, draws=30).detectable is None


def test_null_draws_and_errors_give_the_effect() -> None:
    null = np.linspace(0, 1, 10_001)
    assert detectable_from_null(null, 0.0) == pytest.approx(0.95)
    assert minimum_detectable_effect(2.0, alpha=0.5, power=0.5) == 0.0
    assert minimum_detectable_effect(1.0, critical=3.0, power=0.5) == 3.0
    with pytest.raises(ValueError, match="standard error"):
        minimum_detectable_effect(float("nan"))


def test_calibration_tells_good_from_bad_p_values() -> None:
    rng = np.random.default_rng(4)
    good = p_value_calibration(rng.random(500))
    bad = p_value_calibration(rng.random(500) ** 2)
    timid = p_value_calibration(np.sqrt(rng.random(500)))
    assert good.uniform_p > 0.01
    assert min(good.excess_p) > 0.01
    assert bad.uniform_p < 1e-6
    assert bad.excess_p[1] < 1e-6
    assert timid.uniform_p < 1e-6
    assert min(timid.excess_p) > 0.5  # not uniform, but not anti-conservative either
