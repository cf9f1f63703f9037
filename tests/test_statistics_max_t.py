"""Max-T tables: permutations respect blocks, p-values are uniform under the null, planted signals are found."""

import numpy as np
import pytest

from mesaprobe.statistics import (
    Blocks,
    NullTable,
    instance_blocks,
    max_t,
    p_value_calibration,
    permutation_null,
    residual_max_t,
    residual_null,
    sign_flip_null,
    strata_codes,
    studentised,
)

INSTANCES, STEPS, SITES, TARGETS = 300, 4, 5, 3


def correlated_null(
    rng: np.random.Generator, *, noise: float = 1.0, wild: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Residuals and predictions that are independent of each other, but not across positions, sites or targets."""
    states = rng.integers(STEPS - 1, STEPS + 1, size=INSTANCES)  # ragged: some instances lack the last step
    groups = np.repeat(np.arange(INSTANCES), states)
    steps = np.concatenate([np.arange(count) for count in states])
    own, shared = rng.normal(size=(2, INSTANCES, 1))
    residuals = own[groups] + noise * rng.normal(size=(len(groups), TARGETS)) + 0.3 * steps[:, None]
    predictions = shared[groups] + noise * rng.normal(size=(SITES, len(groups), TARGETS)) + 0.3 * steps[:, None]
    if wild:  # large predictions where residuals spread widely
        residuals *= 0.3 + np.abs(shared[groups])
    return residuals, predictions, groups, steps


def test_whole_instances_swap_within_their_strata() -> None:
    rng = np.random.default_rng(0)
    groups = np.array([5, 5, 2, 2, 9, 9, 4, 4, 4, 7])
    steps = np.array([1, 2, 2, 1, 1, 2, 1, 2, 3, 1])
    blocks = instance_blocks(groups, strata_codes(np.full(10, 8), steps))
    assert blocks.movable == pytest.approx(3 / 5)  # 2, 5 and 9 hold steps 1 and 2
    moved_somewhere = False
    for sources in blocks.permutations(rng, 50):
        swapped = blocks.permute(np.stack([groups, steps], axis=1), sources)
        assert np.array_equal(swapped[:, 1], steps)  # every value stays at its step
        for group in np.unique(groups):
            assert len(set(swapped[groups == group, 0])) == 1  # and comes from one instance with its neighbours
        assert np.array_equal(swapped[groups == 4, 0], [4, 4, 4])
        assert sorted(swapped[:, 0]) == sorted(groups)
        moved_somewhere |= not np.array_equal(swapped[:, 0], groups)
    assert moved_somewhere


def test_permutations_are_uniform_over_the_swaps() -> None:
    sources = instance_blocks(np.arange(3)).permutations(np.random.default_rng(1), 6000)
    _, counts = np.unique(sources, axis=0, return_counts=True)
    assert len(counts) == 6
    assert np.abs(counts - 1000).max() < 4 * np.sqrt(6000 / 6 * 5 / 6)


def test_the_fast_table_equals_the_statistic_of_permuted_residuals() -> None:
    rng = np.random.default_rng(2)
    residuals, predictions, groups, steps = correlated_null(rng)
    blocks = instance_blocks(groups, steps)

    def statistic(r: np.ndarray) -> np.ndarray:
        gains = np.einsum("ist,islt->ilt", blocks.centred(r), blocks.centred(predictions.transpose(1, 0, 2)))
        return studentised(gains, axis=0)

    fast = residual_null(residuals, predictions, blocks, np.random.default_rng(3), permutations=20)
    slow = permutation_null(statistic, residuals, blocks, np.random.default_rng(3), permutations=20)
    np.testing.assert_allclose(fast.observed, slow.observed, rtol=1e-9)
    np.testing.assert_allclose(fast.null, slow.null, rtol=1e-9)


def test_adjusted_values_by_hand() -> None:
    null = np.array([[0.0, 3.0], [1.0, 0.0], [2.0, 1.0], [0.0, 0.0]])
    single = max_t(NullTable(np.array([2.5, 1.5]), null))
    # Maxima are 3, 1, 2, 0: one reaches 2.5, two reach 1.5. Alone: none, and one.
    assert single.adjusted.tolist() == [2 / 5, 3 / 5]
    assert single.raw.tolist() == [1 / 5, 2 / 5]
    assert single.p == 2 / 5
    # Step-down: once the first cell is judged, the second meets only its own null.
    assert max_t(NullTable(np.array([2.5, 1.5]), null), step_down=True).adjusted.tolist() == [2 / 5, 2 / 5]


def test_critical_value_and_p_value_agree() -> None:
    null = np.random.default_rng(4).normal(size=(999, 3))
    critical = max_t(NullTable(np.zeros(3), null)).critical(0.05)
    assert max_t(NullTable(np.array([critical + 1e-6, 0, 0]), null)).p <= 0.05
    assert max_t(NullTable(np.array([critical, 0, 0]), null)).p > 0.05
    assert max_t(NullTable(np.zeros(3), null[:9])).critical(0.05) == np.inf  # 9 permutations never reach .05


def test_standardised_cells_are_free_of_scale() -> None:
    rng = np.random.default_rng(5)
    null, observed = rng.normal(size=(199, 2)), np.array([4.0, 0.0])
    scaled = NullTable(observed * [1, 1000], null * [1, 1000])
    assert max_t(scaled).adjusted[0] > 0.3  # the wide cell decides
    assert max_t(scaled, standardise=True).p == max_t(NullTable(observed, null), standardise=True).p == 0.005


def test_nothing_that_varies_is_never_significant() -> None:
    rng = np.random.default_rng(6)
    residuals, predictions, groups, steps = correlated_null(rng)
    blocks = instance_blocks(groups, steps)
    assert residual_max_t(residuals, 0 * predictions, blocks, rng, permutations=19).p == 1.0
    # Knowing the step only is no evidence: it is the same in every permutation.
    known = np.broadcast_to(steps[None, :, None].astype(float), predictions.shape)
    assert residual_max_t(residuals, known, blocks, rng, permutations=19).p == 1.0
    alone = Blocks(blocks.slots, np.arange(INSTANCES))  # no instance has a partner
    assert residual_max_t(residuals, predictions, alone, rng, permutations=19).p == 1.0


def test_wrong_shapes_are_refused() -> None:
    rng = np.random.default_rng(7)
    blocks = instance_blocks(np.arange(4))
    with pytest.raises(ValueError, match=r"\[site, sample, target\]"):
        residual_max_t(np.zeros((4, 1)), np.zeros((4, 1)), blocks, rng)
    with pytest.raises(ValueError, match="one entry a sample"):
        instance_blocks(np.arange(4), np.arange(3))
    with pytest.raises(ValueError, match="finite"):
        max_t(NullTable(np.array([np.nan]), np.zeros((5, 1))))


def test_a_planted_signal_is_found_where_it_is() -> None:
    rng = np.random.default_rng(8)
    residuals, predictions, groups, steps = correlated_null(rng)
    residuals[:, 1] += 0.4 * predictions[2, :, 1]
    found = residual_max_t(residuals, predictions, instance_blocks(groups, steps), rng)
    assert found.p == found.adjusted[2, 1] == 0.001
    assert (np.delete(found.adjusted, 1, axis=1) > 0.05).all()  # of the other targets
    assert (found.adjusted >= found.raw).all()
    # The same activations with another instance's residuals: nothing.
    blocks = instance_blocks(groups, steps)
    shuffled = blocks.permute(residuals, blocks.permutations(rng, 1)[0])
    assert residual_max_t(shuffled, predictions, blocks, rng).p > 0.05


def table_p_values(draws: int, permutations: int, seed: int, *, wild: bool = False) -> np.ndarray:
    """p of the table, for draws of the null."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        residuals, predictions, groups, steps = correlated_null(rng, wild=wild)
        blocks = instance_blocks(groups, steps)
        found.append(residual_max_t(residuals, predictions, blocks, rng, permutations=permutations).p)
    return np.array(found)


def test_table_p_values_are_uniform_under_the_null() -> None:
    calibration = p_value_calibration(table_p_values(200, 99, seed=9))
    assert calibration.uniform_p > 0.01
    assert min(calibration.excess_p) > 0.01


def test_permuting_single_states_would_be_wrong() -> None:
    """The proof can fail: with states as their own instances, dependence inside instances passes for evidence."""
    rng = np.random.default_rng(10)
    found = []
    for _ in range(40):
        residuals, predictions, groups, steps = correlated_null(rng, noise=0.2)
        blocks = instance_blocks(np.arange(len(groups)), steps)
        found.append(residual_max_t(residuals, predictions, blocks, rng, permutations=99).p)
    assert p_value_calibration(np.array(found)).excess_p[1] < 1e-4


def flipped_p_values(draws: int, flips: int, seed: int) -> np.ndarray:
    """p of a table of paired differences with mean 0: several states an instance, summed, heavy tails."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        states = rng.integers(1, 6, size=INSTANCES)
        noise = rng.standard_t(4, size=(4, INSTANCES)) + rng.standard_t(4, size=INSTANCES)
        found.append(max_t(sign_flip_null(states * noise, rng, flips=flips)).p)
    return np.array(found)


def test_flipped_tables_are_uniform_under_symmetry() -> None:
    calibration = p_value_calibration(flipped_p_values(300, 199, seed=11))
    assert calibration.uniform_p > 0.01
    assert min(calibration.excess_p) > 0.01


@pytest.mark.slow
def test_table_p_values_are_uniform_in_a_thousand_draws() -> None:
    calibration = p_value_calibration(table_p_values(1000, 999, seed=12))
    assert calibration.uniform_p > 0.01
    assert min(calibration.excess_p) > 0.01
    assert p_value_calibration(flipped_p_values(1000, 999, seed=13)).uniform_p > 0.01


@pytest.mark.slow
def test_unequal_spread_makes_no_false_alarms() -> None:
    """Residuals that spread where predictions are large: studentised tables stay at or below their level."""
    assert min(p_value_calibration(table_p_values(600, 199, seed=14, wild=True)).excess_p) > 0.01
