"""Description lengths by online probes: what is planted shortens the code by what it tells, chance lengthens it."""

import numpy as np
import pytest

from mesaprobe.probes import online_class_code, online_value_code
from mesaprobe.statistics import online_blocks

SAMPLES, STATES = 800, 2
GROUPS = np.arange(SAMPLES) // STATES


def test_planted_classes_compress_and_shuffled_ones_cost_more_than_the_uniform_code() -> None:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(SAMPLES) % 4)
    h = np.stack([3 * np.eye(4)[labels], 3 * np.eye(4)[rng.permutation(labels)]])
    h = np.concatenate([h, np.zeros((2, SAMPLES, 8))], axis=2) + rng.normal(size=(2, SAMPLES, 12))
    code = online_class_code(h, labels, GROUPS)
    assert code.prior_bits == pytest.approx(2 * SAMPLES)  # log2(4) bits a label
    assert code.bits.shape == (2, 5)
    assert code.compression[0] > 3
    assert (code.bits[0] < code.base_bits / 4).all()
    assert (code.bits[1] >= code.prior_bits).all()
    assert code.saved[1] < 0


def test_the_base_is_laplaces_rule() -> None:
    labels = np.random.default_rng(1).choice(3, SAMPLES, p=[0.7, 0.2, 0.1])
    code = online_class_code(np.zeros((1, SAMPLES, 1)), labels, GROUPS, fractions=(0.02, 0.1, 0.5, 1.0))
    for order, found in zip(
        online_blocks(GROUPS, np.random.default_rng(0), fractions=(0.02, 0.1, 0.5, 1.0)), code.base_bits, strict=True
    ):
        sent, expected = order[0], len(order[0]) * np.log2(3)
        for block in order[1:]:
            counts = np.bincount(labels[sent], minlength=3)
            expected -= np.log2((counts[labels[block]] + 1) / (len(sent) + 3)).sum()
            sent = np.concatenate([sent, block])
        assert found == pytest.approx(expected, rel=1e-3)
    np.testing.assert_allclose(code.bits[0], code.base_bits)  # activations that are constant say nothing more


def test_what_is_known_is_not_credited_to_the_activations() -> None:
    rng = np.random.default_rng(2)
    odds = 2 * rng.normal(size=(SAMPLES, 3))
    odds[:, 2] -= 1
    chances = np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(3, p=row) for row in chances])
    alone, beside = (online_class_code(odds[None], labels, GROUPS, known=known) for known in (None, odds))
    assert alone.saved[0] > 300
    assert beside.saved[0] < 5
    assert beside.prior_bits == pytest.approx(-np.log2(chances[np.arange(SAMPLES), labels]).sum(), rel=1e-4)


def test_values_are_saved_half_a_logarithm_a_sample_whatever_the_precision() -> None:
    rng = np.random.default_rng(3)
    h = rng.normal(size=(2, SAMPLES, 3))
    y = 50 + 2 * h[0, :, 0] + rng.normal(size=SAMPLES)  # a fifth of the variance is left
    fine, coarse = (online_value_code(h, y, GROUPS, precision=precision) for precision in (0.01, 0.1))
    assert fine.saved[0] == pytest.approx(SAMPLES * np.log2(5) / 2, rel=0.1)
    assert fine.saved[1] < 5
    assert coarse.saved[0] == pytest.approx(fine.saved[0], rel=1e-3)
    assert fine.bits.mean() - coarse.bits.mean() == pytest.approx(SAMPLES * np.log2(10), rel=1e-2)


def test_of_two_sites_of_equal_information_the_one_that_is_learnt_sooner_has_the_shorter_code() -> None:
    """The same number in one column, and spread over sixty: both hold all of it."""
    rng = np.random.default_rng(4)
    spread = rng.normal(size=(SAMPLES, 60))
    signal = spread.sum(axis=1) / np.sqrt(60)
    narrow = np.concatenate([signal[:, None], np.zeros((SAMPLES, 59))], axis=1)
    code = online_value_code(
        np.stack([narrow, spread]), signal + 0.5 * rng.normal(size=SAMPLES), GROUPS, precision=0.01
    )
    assert code.saved[0] > code.saved[1] + 100
    assert code.saved[1] > 100


def test_codes_repeat_with_their_seed_and_ignore_the_names_of_instances() -> None:
    rng = np.random.default_rng(5)
    h, labels = rng.normal(size=(1, 120, 3)), rng.integers(0, 2, 120)
    one, again, named = (
        online_class_code(h, labels, groups, seed=7)
        for groups in (np.arange(120), np.arange(120), 1000 + np.arange(120))
    )
    np.testing.assert_array_equal(one.bits, again.bits)
    np.testing.assert_array_equal(one.bits, named.bits)
    other = online_class_code(h, labels, np.arange(120), seed=8)
    assert not np.array_equal(one.bits, other.bits)


def test_what_cannot_be_sent_is_refused() -> None:
    h, labels, groups = np.zeros((1, 6, 2)), np.arange(6) % 2, np.arange(6)
    with pytest.raises(ValueError, match="at least 2"):
        online_class_code(h, 0 * labels, groups)
    with pytest.raises(ValueError, match=r"\[site, sample, d\]"):
        online_class_code(h[0], labels, groups)
    with pytest.raises(ValueError, match=r"expected \(6,\), got \(5,\)"):
        online_class_code(h, labels, groups[:5])
    with pytest.raises(ValueError, match=r"expected \(6, 2\), got \(6, 3\)"):
        online_class_code(h, labels, groups, known=np.zeros((6, 3)))
    with pytest.raises(ValueError, match="impossible"):
        online_class_code(h, labels, groups, known=np.tile([0.0, -np.inf], (6, 1)))
    with pytest.raises(ValueError, match="constant"):
        online_value_code(h, np.ones(6), groups, precision=0.1)
    with pytest.raises(ValueError, match="above 0"):
        online_value_code(h, labels.astype(float), groups, precision=0.0)
