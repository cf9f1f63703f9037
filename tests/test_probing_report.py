"""The page of the lines that read activations: what stands in their figures."""

import numpy as np
import pytest
from stored_analysis import stored_figures

from mesaprobe.report.lines import probing, revision


@pytest.mark.parametrize(("line", "view"), [("E5", "decode"), ("E5", "city"), ("E6", "pair"), ("E6", "hidden")])
def test_a_view_shows_model_nulls_and_selected_site(line: str, view: str) -> None:
    arrays = stored_figures()[line]
    own = np.flatnonzero(arrays["roles"] == view)
    figure = probing.information_figure(arrays, view)
    traces = {trace.name: trace for trace in figure.data if trace.name}
    np.testing.assert_array_equal(traces["model"].y, arrays["information"][own])
    np.testing.assert_allclose(traces["random-init twins"].y, arrays["twin_information"][:, own].mean(axis=0))
    np.testing.assert_array_equal(traces["longest tour"].y, arrays["swap_information"][own])
    single = next(t for t in figure.data if t.name is None and len(t.x) == arrays["twin_information"][:, own].size)
    np.testing.assert_array_equal(single.y, arrays["twin_information"][:, own].ravel())
    assert ("selected site" in traces) is (view == "decode")
    error = traces["model"].error_y
    np.testing.assert_allclose(arrays["information"][own] + error.array, arrays["information_high"][own])
    np.testing.assert_allclose(arrays["information"][own] - error.arrayminus, arrays["information_low"][own])


def test_views_share_their_range_which_holds_every_interval() -> None:
    arrays = stored_figures()["E5"]
    ranges = [probing.information_figure(arrays, view).layout.yaxis.range for view in ("decode", "city")]
    assert ranges[0] == ranges[1]
    low, high = ranges[0]
    assert low < arrays["information_low"].min()
    assert arrays["information_high"].max() < high


def test_sites_are_drawn_from_input_to_output_whatever_their_order() -> None:
    arrays = stored_figures()["E5"]
    shuffle = np.random.default_rng(0).permutation(len(arrays["hooks"]))
    sites = len(shuffle)
    mixed = {key: value[..., shuffle] if value.shape[-1:] == (sites,) else value for key, value in arrays.items()}
    straight, found = (
        next(t for t in probing.information_figure(a, "city").data if t.name == "model") for a in (arrays, mixed)
    )
    np.testing.assert_array_equal(found.y, straight.y)
    assert found.customdata == straight.customdata


def test_targets_stand_in_their_order_with_their_intervals() -> None:
    arrays = stored_figures()["E6"]
    (trace,) = probing.targets_figure(arrays).data
    np.testing.assert_array_equal(trace.x, arrays["target_net"])
    np.testing.assert_allclose(trace.x + trace.error_x.array, arrays["target_high"])
    assert list(trace.y) == arrays["target_names"].tolist()


def test_sections_name_every_target_and_every_layer() -> None:
    figures = stored_figures()
    page = str(probing.probing_section(figures["E5"]))
    assert all(name in page for name in figures["E5"]["target_names"].tolist())
    (costs,) = revision.costs_figure(figures["E10a"]).data
    np.testing.assert_array_equal(costs.y, figures["E10a"]["costs"])
    assert all(hook in str(revision.revision_section(figures["E10a"])) for hook in figures["E10a"]["hooks"].tolist())
