"""hfclib.tables_kernels: what is measured of which weights, and intervals against those worked out by hand."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from hfclib.kernels import convolutions, high_frequency_share, roughness, smooth_kernels
from hfclib.paper.fig3 import (
    fig3_recipes,
    first_layers,
    kernel_contrast,
    kernel_estimate,
    kernel_measures,
    kernel_table,
    layer_measures,
    mean_responses,
    of_size,
    response_table,
)
from hfclib.paper.intervals import Estimate, MissingRunError, interval, over_kernels
from hfclib.paper.tables import with_interval
from hfclib.training.loop import initial_model

RECIPES = fig3_recipes("smoke")
SMOOTH = torch.ones(3, 3)  # roughness 0
HALF = torch.tensor([[1.0, 1, -1]] * 3)  # 3 of 12 differences are 2 and the root mean square is 1: roughness .5
CHECKERS = torch.tensor([[1.0, -1, 1], [-1, 1, -1], [1, -1, 1]])  # all differences are 2: roughness 2


def run(variant="vanilla", seed=0, planes=None, **changes):
    """What a run is to these tables; its first layer has the given planes, a list for each kernel."""
    recipe = replace(RECIPES[variant], **changes)
    network = initial_model(recipe, seed + 1000)  # other weights than those that its training starts from
    if planes:
        network.conv1.weight.data = torch.stack([torch.stack(ones) for ones in planes])
    return SimpleNamespace(recipe=recipe, seed=seed, model=lambda: network)


@pytest.fixture(scope="module")
def runs():
    return {
        variant: [run(variant, seed) for seed in seeds]
        for variant, seeds in (("vanilla", (0, 2)), ("adversarial_batchnorm", (2,)), ("vanilla5", (1,)))
    }


def by_hand(rows):
    """A table of `kernels` from {(variant, seed): values}: roughness as given, share a tenth of it."""
    return pd.DataFrame(
        [
            {
                "variant": variant,
                "seed": seed,
                "state": "trained",
                "kernel": kernel,
                "roughness": value,
                "share": value / 10,
            }
            for (variant, seed), values in rows.items()
            for kernel, value in enumerate(values)
        ]
    )


# ---- measured kernels


def test_kernels_by_hand():
    planes = [[SMOOTH, SMOOTH, SMOOTH], [CHECKERS, SMOOTH, HALF], [HALF, 7 * HALF, HALF / 9], [CHECKERS] * 3]
    found = kernel_measures({"vanilla": [run(planes=planes)]})
    trained = found[found["state"] == "trained"]
    assert trained["kernel"].tolist() == [0, 1, 2, 3]
    assert trained["roughness"].tolist() == pytest.approx([0, 2.5 / 3, 0.5, 2])  # a plane counts whatever its size
    shares = [high_frequency_share(plane[None, None], 12).item() for plane in (SMOOTH, HALF, CHECKERS)]
    expected = [shares[0], sum(shares) / 3, shares[1], shares[2]]
    assert trained["share"].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("rho", [0, 0.5, 3.0])
def test_the_four_states(runs, rho):
    found = kernel_measures(runs, rho)
    assert list(found.columns) == ["variant", "seed", "state", "kernel", "roughness", "share"]
    assert len(found) == 4 * 4 * 4  # runs, states, kernels
    for variant, ones in runs.items():
        for one in ones:
            start = initial_model(one.recipe, one.seed).conv1.weight
            end = one.model().conv1.weight
            weights = {
                "initial": start,
                "trained": end,
                "added": end - start,
                "smoothed": smooth_kernels(one.model(), rho).conv1.weight,
            }
            for state, weight in weights.items():
                own = found.query(f"variant == '{variant}' and seed == {one.seed} and state == '{state}'")
                assert own["roughness"].tolist() == pytest.approx(roughness(weight).mean(dim=1).tolist())
                shares = high_frequency_share(weight, 12).mean(dim=1).tolist()
                assert own["share"].tolist() == pytest.approx(shares)
    wide = found.pivot(index=["variant", "seed", "kernel"], columns="state", values="roughness")
    if rho:
        assert wide["smoothed"].mean() < 0.8 * wide["trained"].mean()
    else:
        assert (wide["smoothed"] == wide["trained"]).all()


def test_initial_weights_are_those_of_the_runs_own_seed(runs):
    found = kernel_measures(runs)
    first = found.query("variant == 'vanilla' and state == 'initial'").set_index("seed")["roughness"]
    assert first[0].tolist() == roughness(initial_model(RECIPES["vanilla"], 0).conv1.weight).mean(dim=1).tolist()
    assert first[0].tolist() != first[2].tolist()


def test_every_layer_larger_than_1_x_1(runs):
    found = layer_measures(runs)
    assert list(found.columns) == ["variant", "seed", "state", "layer", "size", "planes", "roughness", "share"]
    assert len(found) == 4 * 2 * 17
    assert found.groupby("layer")["variant"].count().index.tolist() == list(range(1, 18))
    for state, make in (
        ("trained", lambda one: one.model()),
        ("initial", lambda one: initial_model(one.recipe, one.seed)),
    ):
        for variant, ones in runs.items():
            for one in ones:
                own = found.query(f"variant == '{variant}' and seed == {one.seed} and state == '{state}'")
                weights = [convolution.weight for convolution in convolutions(make(one), "all")]
                assert own["planes"].tolist() == [len(weight) * weight.shape[1] for weight in weights]
                assert own["size"].tolist() == [weight.shape[-1] for weight in weights]
                assert own["roughness"].tolist() == pytest.approx([roughness(one).mean().item() for one in weights])
                shares = [high_frequency_share(one, 12).mean().item() for one in weights]
                assert own["share"].tolist() == pytest.approx(shares)
    assert found.query("variant == 'vanilla5' and layer == 1")["size"].tolist() == [5, 5]
    assert found.query("variant == 'vanilla5' and layer == 1")["planes"].tolist() == [12, 12]


def test_the_authors_network_has_its_layers_too():
    found = layer_measures({"vanilla": [run(arch="resnet32")]})
    assert found["layer"].max() == 31


def test_panels_by_the_size_of_their_kernels(runs):
    assert list(of_size(runs, 3)) == ["vanilla", "adversarial_batchnorm"]
    assert of_size(runs, 5) == {"vanilla5": runs["vanilla5"]}
    assert of_size(of_size(runs, 3), 5) == {}


# ---- intervals


def test_an_estimate_is_over_seeds_or_else_over_kernels():
    index = pd.MultiIndex.from_tuples([(0, 0), (0, 1), (4, 0), (4, 1)], names=["seed", "kernel"])
    values = pd.Series([1.0, 3, 2, 6], index=index)
    assert kernel_estimate(values) == Estimate(*interval([2, 4]), seeds=2)
    alone = kernel_estimate(values.loc[[4]])
    assert alone == Estimate(*interval([2, 6]), seeds=1, over="kernels")
    assert alone.what == "kernels, 1 seed"
    assert kernel_estimate(values).what == "2 seeds"


@given(st.lists(st.floats(-9, 9), min_size=2, max_size=9), st.lists(st.floats(-9, 9), min_size=2, max_size=9))
def test_a_difference_over_kernels_is_welchs(first, second):
    assume(min(np.var(first), np.var(second)) > 1e-6)  # scipy warns of equal values
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    mean, low, high = over_kernels([first, second], [1, -1])
    assert mean == pytest.approx(np.mean(first) - np.mean(second))
    assert (low, high) == pytest.approx((expected.low, expected.high))
    assert over_kernels([first, second], [-1, 1]) == pytest.approx((-mean, -high, -low))
    assert over_kernels([first], [1]) == pytest.approx(interval(first))


def test_a_difference_of_differences_by_hand():
    """Four samples of two with variance 2, so 1 each of the mean: 4 in all, with 4**2 / 4 = 4 degrees of freedom."""
    mean, low, high = over_kernels([[9, 11], [3, 5], [7, 9], [6, 8]], [1, -1, -1, 1])
    assert mean == 10 - 4 - 8 + 7
    assert high - mean == mean - low == pytest.approx(2.776445 * 2, rel=1e-6)


def test_equal_kernels_leave_nothing_open_and_a_single_one_everything():
    assert over_kernels([[2, 2], [1, 1, 1]], [1, -1]) == (1, 1, 1)
    assert over_kernels([[2, 2], [1]], [1, -1]) == (1, -np.inf, np.inf)


def test_a_contrast_pairs_seeds_and_falls_back_on_kernels():
    table = by_hand(
        {
            ("vanilla", 0): [1, 3],
            ("vanilla", 1): [4, 6],
            ("vanilla", 7): [90, 90],
            ("adversarial", 1): [2, 4],
            ("adversarial", 0): [0, 1],
        }
    )
    signs = {"vanilla": 1, "adversarial": -1}
    assert kernel_contrast(table, signs, "roughness") == Estimate(*interval([1.5, 2]), seeds=2)
    share = kernel_contrast(table, signs, "share")
    assert (share.mean, share.seeds) == (pytest.approx(0.175), 2)
    alone = kernel_contrast(table[table["seed"] != 0], signs, "roughness")
    assert alone == Estimate(*over_kernels([[4, 6], [2, 4]], [1, -1]), seeds=1, over="kernels")
    with pytest.raises(MissingRunError, match="no seed has runs of all of vanilla, adversarial"):
        kernel_contrast(table[table["seed"] == 7], signs, "roughness")
    with pytest.raises(MissingRunError, match="vanilla5"):
        kernel_contrast(table, signs | {"vanilla5": 1}, "roughness")


def test_a_contrast_is_of_trained_weights():
    table = by_hand({("vanilla", 0): [1, 3], ("adversarial", 0): [0, 1]})
    others = pd.concat([table.assign(state=state, roughness=50.0) for state in ("initial", "added", "smoothed")])
    signs = {"vanilla": 1, "adversarial": -1}
    assert kernel_contrast(pd.concat([others, table]), signs, "roughness").mean == 1.5


# ---- the reader's table


def test_the_readers_table(runs):
    table = kernel_measures(runs, 0.5)
    found = kernel_table(table).replace(r" \[", "\u00a0[", regex=True)  # where a cell may break
    titles = ["Vanilla", "Adversarial, BatchNorm", "Vanilla, 5 x 5"]
    assert list(found.index) == [
        (measure, title) for measure in ("roughness", "share of energy at r >= 12") for title in titles
    ]
    assert found["interval"].tolist() == ["2 seeds", "kernels, 1 seed", "kernels, 1 seed"] * 2
    columns = {
        "at initialisation": "initial",
        "trained": "trained",
        "what training added": "added",
        "trained, then smoothed": "smoothed",
    }
    for title, variant in zip(titles, runs, strict=True):
        for text, measure in (("roughness", "roughness"), ("share of energy at r >= 12", "share")):
            own = table[table["variant"] == variant]
            several = variant == "vanilla"
            for column, state in columns.items():
                values = own[own["state"] == state]
                values = values.groupby("seed")[measure].mean() if several else values[measure]
                assert found.loc[(text, title), column] == with_interval(*interval(values))
            wide = own.pivot(index=["seed", "kernel"], columns="state", values=measure)
            less = wide["trained"] - wide["initial"]  # kernel by kernel
            less = less.groupby("seed").mean() if several else less
            assert found.loc[(text, title), "trained less initial"] == with_interval(*interval(less))


# ---- what pictures show


def test_kernels_to_look_at_go_from_smooth_to_rough():
    planes = [[CHECKERS] * 3, [SMOOTH] * 3, [CHECKERS, HALF, SMOOTH], [HALF] * 3]
    found = first_layers({"adversarial": [run("adversarial", 3, planes), run("adversarial", 4)]})
    assert list(found) == ["At initialisation, seed 3", "Adversarial, seed 3"]
    assert torch.equal(found["Adversarial, seed 3"], torch.stack([torch.stack(planes[i]) for i in (1, 3, 2, 0)]))
    start = initial_model(RECIPES["adversarial"], 3).conv1.weight
    order = roughness(start).mean(dim=1).argsort()
    assert torch.equal(found["At initialisation, seed 3"], start[order])


def test_smoothed_kernels_stay_in_their_places():
    planes = [[CHECKERS] * 3, [SMOOTH] * 3, [CHECKERS, HALF, SMOOTH], [HALF] * 3]
    one = run(planes=planes)
    found = first_layers({"vanilla": [one]}, 1.0)["Vanilla, seed 0"]
    expected = smooth_kernels(one.model(), 1.0, normalise=True).conv1.weight[[1, 3, 2, 0]]
    assert torch.equal(found, expected)
    assert torch.equal(found[0], torch.ones(3, 3, 3))  # the gain is divided out


@pytest.mark.parametrize(("width", "shown"), [(4, 16), (16, 16), (31, 16), (40, 5), (4, 1)])
def test_of_many_kernels_some_are_shown_at_equal_steps_of_the_order(width, shown):
    found = first_layers({"vanilla": [run(width=width)]}, shown=shown)
    for weight in found.values():
        assert len(weight) == min(width, shown)
        rough = roughness(weight).mean(dim=1).tolist()
        assert rough == sorted(rough)
        assert len(set(rough)) == len(rough)
    every = roughness(run(width=width).model().conv1.weight).mean(dim=1)
    assert rough[0] == pytest.approx(every.min().item())
    assert shown == 1 or rough[-1] == pytest.approx(every.max().item())


def test_responses_start_with_the_initialisation_of_each_size(runs):
    found = mean_responses(runs)
    assert list(found) == [
        "At initialisation",
        "Vanilla",
        "Adversarial, BatchNorm",
        "At initialisation, 5 x 5",
        "Vanilla, 5 x 5",
    ]
    for response in found.values():
        assert response.shape == (32, 32)


def test_responses_by_hand():
    """Each plane counts the same, whatever its norm: a single weight passes all alike, a constant plane frequency 0."""
    single = torch.zeros(3, 3)
    single[1, 1] = 5
    found = mean_responses({"vanilla": [run(planes=[[single] * 3] * 4)]})
    torch.testing.assert_close(found["Vanilla"], torch.ones(32, 32))
    found = mean_responses({"vanilla": [run(planes=[[SMOOTH, single, 0 * SMOOTH]] * 4)]})
    assert found["Vanilla"][16, 16].item() == pytest.approx((3 + 1 + 0) / 3)  # 9 / 3, the norm of nine ones
    both = [run(planes=[[single] * 3] * 4), run(seed=1, planes=[[SMOOTH] * 3] * 4)]
    assert mean_responses({"vanilla": both})["Vanilla"][16, 16].item() == pytest.approx(2)


def test_responses_as_rows():
    first = torch.arange(6.0).reshape(2, 3)[:, :2]
    rows = response_table({"a": first, "b": torch.zeros(32, 32)})
    assert len(rows) == 4 + 32 * 32
    assert set(rows.columns) == {"title", "vertical", "horizontal", "magnitude"}
    found = rows[rows["title"] == "a"].set_index(["vertical", "horizontal"])["magnitude"]
    assert found.to_dict() == {(-1, -1): 0, (-1, 0): 1, (0, -1): 3, (0, 0): 4}
    assert sorted(rows.loc[rows["title"] == "b", "vertical"].unique()) == list(range(-16, 16))


def test_nothing_to_show():
    assert first_layers({}) == {}
    assert mean_responses({}) == {}
