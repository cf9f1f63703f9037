"""Collected activations are those of the states they name, at any chunk, on disk or in memory, and know their rows."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_networks import MODES, PROBLEM, N, network, shape

from mesaprobe.errors import UserError
from mesaprobe.models import Subject, gpt_subject
from mesaprobe.probes import (
    Site,
    collect,
    collect_activations,
    collect_city_tokens,
    head_sites,
    instance_keys,
    mlp_sites,
    residual_sites,
)

COUNT, STEPS = 7, slice(1, 4)


def subject(attention: str = "prefix") -> Subject:
    return gpt_subject(network(shape(attention)), PROBLEM, "small", {})


def drawn(seed: int = 0, count: int = COUNT) -> tuple[torch.Tensor, torch.Tensor]:
    features = torch.from_numpy(PROBLEM.draw(count, np.random.default_rng(seed)).features)
    generator = torch.Generator().manual_seed(seed)
    rest = torch.stack([torch.randperm(N - 1, generator=generator) + 1 for _ in range(count)])
    return features, torch.cat([torch.zeros(count, 1, dtype=torch.long), rest], dim=1)


@pytest.mark.parametrize("attention", MODES)
def test_each_value_is_that_of_a_pass_over_its_prefix_alone(attention: str) -> None:
    model, (features, tours) = subject(attention), drawn()
    sites, cities = residual_sites(model), tours[:, 2:5]
    found = collect(model, features, tours, STEPS, sites, cities=cities, dtype=np.float32, chunk=3)
    assert found.values.shape == (len(sites), COUNT, 3, 16)
    for column, step in enumerate(range(1, 4)):
        seen = model.activations(features, tours[:, : step + 1], [site.hook for site in sites])
        for index, site in enumerate(sites):
            at = model.decode_position(step + 1) if site.role == "decode" else cities[:, column]
            expected = seen[site.hook][torch.arange(COUNT), at]
            np.testing.assert_allclose(found.values[index, :, column], expected, atol=1e-4, rtol=1e-4)


def test_a_file_holds_what_memory_holds_whatever_the_chunk(tmp_path: Path) -> None:
    model, (features, tours) = subject(), drawn()
    sites = residual_sites(model, ("decode",))
    whole = collect(model, features, tours, STEPS, sites, dtype=np.float32, chunk=100)
    mapped = collect(model, features, tours, STEPS, sites, dtype=np.float32, chunk=2, file=tmp_path / "a.npy")
    assert isinstance(mapped.values, np.memmap)
    np.testing.assert_allclose(mapped.values, whole.values, atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
    assert mapped.samples.shape == (len(sites), COUNT * 3, 16)
    np.testing.assert_array_equal(mapped.samples[:, 3 * 4 + 2], mapped.values[:, 4, 2])
    np.testing.assert_array_equal(mapped.groups, np.repeat(np.arange(COUNT), 3))


def test_an_interrupted_collection_leaves_no_file(tmp_path: Path) -> None:
    model, (features, tours) = subject(), drawn()
    features[-1] = torch.nan
    with pytest.raises(UserError, match="NaN"):
        collect(model, features, tours, STEPS, residual_sites(model, ("decode",)), chunk=2, file=tmp_path / "a.npy")
    assert list(tmp_path.iterdir()) == []


def test_half_precision_is_within_a_thousandth_and_refuses_what_it_cannot_hold() -> None:
    model, (features, tours) = subject(), drawn()
    sites = residual_sites(model, ("decode",))
    half, full = (collect(model, features, tours, STEPS, sites, dtype=d).values for d in (np.float16, np.float32))
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, full, rtol=1e-3, atol=1e-4)
    loud = network()
    loud.blocks[1].mlp.out.bias[3] = 1e5
    with pytest.raises(UserError, match=r"blocks.1.hook_\w+ @ decode reach 1000\d\d, more than float16 holds"):
        collect(gpt_subject(loud, PROBLEM, "loud", {}), features, tours, STEPS, sites)


def test_city_tokens_are_read_at_the_root() -> None:
    model, (features, _) = subject("bidirectional"), drawn()
    sites = [Site("blocks.1.hook_resid_post", "city", 1, "resid_post")]
    found = collect_city_tokens(model, features, sites, dtype=np.float32, chunk=4)
    seen = model.activations(features, torch.zeros(COUNT, 1, dtype=torch.long), [sites[0].hook])[sites[0].hook]
    np.testing.assert_allclose(found.values[0], seen[:, :N], atol=1e-4, rtol=1e-4)


def test_heads_and_hidden_units_are_sites_too() -> None:
    model, (features, tours) = subject(), drawn()
    z = collect(model, features, tours, STEPS, head_sites(model, heads=2), dtype=np.float32)
    seen = model.activations(features, tours[:, :3], ["blocks.2.attn.hook_z"])["blocks.2.attn.hook_z"]
    assert [(site.layer, site.head) for site in z.sites] == [(layer, head) for layer in range(3) for head in range(2)]
    np.testing.assert_allclose(z.values[5, :, 1], seen[:, model.decode_position(3), 1], atol=1e-4, rtol=1e-4)
    assert collect(model, features, tours, STEPS, mlp_sites(model)).values.shape == (3, COUNT, 3, 24)
    with pytest.raises(ValueError, match=r"of one width, got \[16, 24\]"):
        collect(model, features, tours, STEPS, [*mlp_sites(model), *residual_sites(model, ("decode",))])


def test_labels_of_other_rows_are_refused() -> None:
    model, (features, tours) = subject(), drawn()
    found = collect(model, features, tours, STEPS, residual_sites(model, ("decode",)))
    found.check_pairing(features, tours)
    found.check_pairing(features.numpy().astype(np.float64))
    swapped = torch.tensor([0, 1, 3, 2, 4, 5, 6])
    with pytest.raises(ValueError, match=r"different instances in 2 of 7 rows, first in row 2"):
        found.check_pairing(features[swapped])
    other = tours.clone()
    other[4, [2, 3]] = other[4, [3, 2]]
    with pytest.raises(ValueError, match=r"different tours, first in row 4"):
        found.check_pairing(features, other)
    other = tours.clone()
    other[4, [4, 5]] = other[4, [5, 4]]  # behind the last state: the same states
    found.check_pairing(features, other)
    with pytest.raises(ValueError, match="speak of 6 instances, the activations of 7"):
        found.check_pairing(features[:6])
    assert len(set(instance_keys(features).tolist())) == COUNT


def test_what_does_not_fit_is_refused() -> None:
    model, (features, tours) = subject(), drawn(count=3)
    with pytest.raises(ValueError, match=r"\(batch, step\) = \(3, 2\)"):
        collect_activations(model, features, tours, slice(0, 2), tours[:, :1], residual_sites(model))
    with pytest.raises(ValueError, match="whose token"):
        collect(model, features, tours, STEPS, residual_sites(model))
    with pytest.raises(ValueError, match="no instances"):
        collect(model, features[:0], tours[:0], STEPS, residual_sites(model, ("decode",)))


MEASURE = """
import resource, sys, tempfile, pathlib
import numpy as np, torch
from mesaprobe.models import GPTConfig, TourGPT, gpt_subject
from mesaprobe.probes import collect, residual_sites, ridge_sweep
from mesaprobe.problems import ProblemConfig, make_problem
torch.set_num_threads(1)
n, count = 10, int(sys.argv[1])
problem = make_problem(ProblemConfig(n=n))
model = gpt_subject(TourGPT(GPTConfig(n_layers=6), n, n), problem, "six layers", {})
features = torch.from_numpy(problem.draw(count, np.random.default_rng(0)).features)
tours = torch.arange(n).expand(count, n)
imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
with tempfile.TemporaryDirectory() as folder:
    file = pathlib.Path(folder) / "a.npy"
    found = collect(model, features, tours, slice(1, 6), residual_sites(model), cities=tours[:, 2:7], file=file)
    collected = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if len(sys.argv) > 2:
        y = np.random.default_rng(0).normal(size=(found.samples.shape[1], 4))
        ridge_sweep(found.samples, y, found.groups % 5, groups=found.groups)
    swept = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(imported, collected, swept, found.values.nbytes / 2**20)
"""


def measured(*arguments: str) -> list[float]:
    run = subprocess.run([sys.executable, "-c", MEASURE, *arguments], capture_output=True, text=True, check=True)
    return [float(number) for number in run.stdout.split()]


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_data() -> None:
    """Collecting 4 times the instances to a file must not take more memory than what they themselves need."""
    few, many = measured("1000"), measured("4000")
    print(f"peak MB at 1,000 instances {few[1]:.0f}, at 4,000 {many[1]:.0f} (values of {many[3]:.0f} MB)")  # noqa: T201
    assert many[1] - few[1] < 0.25 * (many[3] - few[3])


@pytest.mark.slow
def test_collecting_and_probing_4000_instances_of_6_layers_takes_less_than_2_gb() -> None:
    imported, collected, swept, size = measured("4000", "sweep")
    print(f"peak MB: imported {imported:.0f}, collected {collected:.0f}, swept {swept:.0f}, file {size:.0f}")  # noqa: T201
    assert swept < 2000
