"""Fig. 3: what is measured of which weights, intervals against those worked out by hand, every weight in its place."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from hfclib.kernels import high_frequency_share, roughness, smooth_kernels
from hfclib.paper.fig3 import (
    FIG3,
    fig3_recipes,
    first_layers,
    kernel_measures,
    kernel_table,
    kernels_figure,
    mean_responses,
    of_size,
    response_table,
    responses_figure,
)
from hfclib.paper.intervals import Estimate, MissingRunError, interval
from hfclib.paper.scoreboard import scoreboard
from hfclib.paper.tables import with_interval
from hfclib.training.loop import initial_model
from tests.paper.tidy import drawn, welch

RECIPES = fig3_recipes("smoke")
SMOOTH = torch.ones(3, 3)  # roughness 0
HALF = torch.tensor([[1.0, 1, -1]] * 3)  # 3 of 12 differences are 2 and the root mean square is 1: roughness .5
CHECKERS = torch.tensor([[1.0, -1, 1], [-1, 1, -1], [1, -1, 1]])  # all differences are 2: roughness 2


def run(variant="vanilla", seed=0, planes=None, **changes):
    """What a run is to these tables; its first layer has the given planes, a list for each kernel."""
    recipe = RECIPES[variant].with_(**changes)
    network = initial_model(recipe, seed + 1000)  # other weights than those that its training starts from
    if planes:
        network.conv1.weight.data = torch.stack([torch.stack(ones) for ones in planes])
    return SimpleNamespace(recipe=recipe, seed=seed, has_weights=True, model=lambda: network)


@pytest.fixture(scope="module")
def runs():
    return {
        variant: [run(variant, seed) for seed in seeds]
        for variant, seeds in (("vanilla", (0, 2)), ("adversarial_batchnorm", (2,)), ("vanilla5", (1,)))
    }


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


@pytest.mark.parametrize("rho", [0, 0.5])
def test_the_four_states(runs, rho):
    measures = kernel_measures(runs, rho)
    assert list(measures.columns) == ["variant", "seed", "draw", "state", "kernel", "roughness", "share"]
    assert len(measures) == 4 * 4 * 4  # runs, states, kernels
    for variant, ones in runs.items():
        for run in ones:
            start = initial_model(run.recipe, run.seed).conv1.weight
            end = run.model().conv1.weight
            weights = {
                "initial": start,
                "trained": end,
                "added": end - start,
                "smoothed": smooth_kernels(run.model(), rho).conv1.weight,
            }
            for state, weight in weights.items():
                own = measures.query(f"variant == '{variant}' and seed == {run.seed} and state == '{state}'")
                assert own["roughness"].tolist() == pytest.approx(roughness(weight).mean(dim=1).tolist())
                shares = high_frequency_share(weight, 12).mean(dim=1).tolist()
                assert own["share"].tolist() == pytest.approx(shares)
    wide = measures.pivot(index=["variant", "seed", "kernel"], columns="state", values="roughness")
    if rho:
        assert wide["smoothed"].mean() < 0.8 * wide["trained"].mean()
    else:
        assert (wide["smoothed"] == wide["trained"]).all()


def test_a_network_of_which_only_tables_are_kept_is_left_out(runs):
    tables = SimpleNamespace(recipe=runs["vanilla"][0].recipe, seed=9, has_weights=False)
    more = {**runs, "vanilla": [tables, *runs["vanilla"]], "dropout": [tables]}
    pd.testing.assert_frame_equal(kernel_measures(more), kernel_measures(runs))
    assert list(first_layers(more)) == list(first_layers(runs))
    for title, response in mean_responses(runs).items():
        assert torch.equal(response, mean_responses(more)[title])


def test_panels_by_the_size_of_their_kernels(runs):
    assert list(of_size(runs, 3)) == ["vanilla", "adversarial_batchnorm"]
    assert of_size(runs, 5) == {"vanilla5": runs["vanilla5"]}
    assert of_size(of_size(runs, 3), 5) == {}


# ---- claims


def by_hand(rows):
    """A table of `kernel_measures` from {(variant, seed): roughness of each kernel}; other states differ."""
    sizes = {"vanilla5": "5 x 5", "adversarial5": "5 x 5"}
    return pd.DataFrame(
        [
            {"variant": variant, "seed": seed, "draw": sizes.get(variant, "3 x 3"), "state": state, "kernel": kernel}
            | {"roughness": value + shift}
            for (variant, seed), values in rows.items()
            for kernel, value in enumerate(values)
            for state, shift in (("trained", 0), ("initial", 99), ("added", -99), ("smoothed", kernel))
        ]
    )


def test_a_contrast_is_over_the_seeds_that_all_networks_of_one_size_have():
    table = by_hand(
        {
            ("vanilla", 0): [1, 3],
            ("vanilla", 1): [4, 6],
            ("vanilla", 7): [90, 90],
            ("adversarial", 1): [2, 4],
            ("adversarial", 0): [0, 1],
            ("vanilla5", 1): [10, 10],
            ("adversarial5", 1): [3, 5],
        }
    )
    claims = {claim.id.removeprefix("fig3-roughness-"): claim for claim in FIG3.claims}
    smoother, clearer, batchnorm = (claims[name] for name in ("adversarial", "clearer", "adversarial_batchnorm"))
    assert FIG3.estimate(smoother, table) == Estimate(*interval([1.5, 2]), seeds=2)
    assert FIG3.estimate(clearer, table) == Estimate(6 - 1.75, -np.inf, np.inf, seeds=1)
    with pytest.raises(MissingRunError):
        FIG3.estimate(smoother, table[table["seed"] == 7])
    with pytest.raises(MissingRunError):
        FIG3.estimate(batchnorm, table)
    more = {("vanilla5", 0): [8, 8], ("adversarial5", 0): [7, 7]}
    both = pd.concat([table, by_hand(more)], ignore_index=True)
    found, expected = FIG3.estimate(clearer, both), welch([6, 1], [2, 1.5])  # kernels of two sizes share no weights
    assert (found.mean, found.low, found.high) == pytest.approx((expected.mean, expected.low, expected.high))


# ---- the reader's table


def test_the_readers_table(runs):
    table = kernel_measures(runs, 0.5)
    shown = kernel_table(table).replace(r" \[", "\u00a0[", regex=True)  # where a cell may break
    titles = ["Vanilla", "Adversarial training, BatchNorm", "Vanilla, 5 x 5"]
    assert list(shown.index) == [
        (measure, title) for measure in ("roughness", "share of energy at r >= 12") for title in titles
    ]
    assert shown["seeds"].tolist() == [2, 1, 1] * 2
    columns = {
        "at initialisation": "initial",
        "trained": "trained",
        "what training added": "added",
        "trained, then smoothed": "smoothed",
    }
    for title, variant in zip(titles, runs, strict=True):
        for text, measure in (("roughness", "roughness"), ("share of energy at r >= 12", "share")):
            own = table[table["variant"] == variant]
            means = own.groupby(["seed", "state"])[measure].mean().unstack()
            for column, state in columns.items():
                assert shown.loc[(text, title), column] == with_interval(*interval(means[state]))
            less = means["trained"] - means["initial"]
            assert shown.loc[(text, title), "trained less initial"] == with_interval(*interval(less))


# ---- what pictures show


def test_kernels_to_look_at_go_from_smooth_to_rough():
    planes = [[CHECKERS] * 3, [SMOOTH] * 3, [CHECKERS, HALF, SMOOTH], [HALF] * 3]
    layers = first_layers({"adversarial": [run("adversarial", 3, planes), run("adversarial", 4)]})
    assert list(layers) == ["At initialisation, seed 3", "Adversarial training, seed 3"]
    assert torch.equal(
        layers["Adversarial training, seed 3"], torch.stack([torch.stack(planes[i]) for i in (1, 3, 2, 0)])
    )
    start = initial_model(RECIPES["adversarial"], 3).conv1.weight
    order = roughness(start).mean(dim=1).argsort()
    assert torch.equal(layers["At initialisation, seed 3"], start[order])


@pytest.mark.parametrize(("width", "shown"), [(31, 16), (4, 1)])
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
    responses = mean_responses(runs)
    assert list(responses) == [
        "At initialisation",
        "Vanilla",
        "Adversarial training, BatchNorm",
        "At initialisation, 5 x 5",
        "Vanilla, 5 x 5",
    ]
    for response in responses.values():
        assert response.shape == (32, 32)


def test_responses_by_hand():
    """Each plane counts the same, whatever its norm: a single weight passes all alike, a constant plane frequency 0."""
    single = torch.zeros(3, 3)
    single[1, 1] = 5
    responses = mean_responses({"vanilla": [run(planes=[[single] * 3] * 4)]})
    torch.testing.assert_close(responses["Vanilla"], torch.ones(32, 32))
    responses = mean_responses({"vanilla": [run(planes=[[SMOOTH, single, 0 * SMOOTH]] * 4)]})
    assert responses["Vanilla"][16, 16].item() == pytest.approx((3 + 1 + 0) / 3)  # 9 / 3, the norm of nine ones
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


# ---- drawings


@pytest.fixture
def weights():
    return {"First": torch.randn(16, 3, 3, 3), "Second": 0.1 * torch.randn(16, 3, 3, 3)}


# ---- kernels


def test_each_weight_is_in_its_place_on_one_scale(weights):
    figure = kernels_figure(weights)
    limit = np.quantile(np.concatenate([weight.abs().flatten() for weight in weights.values()]), 0.99)
    *blocks, bar = figure.axes
    assert bar.get_ylabel() == "Weight"
    assert [ax.get_title(loc="left") for ax in blocks] == list(weights)
    assert figure.get_supxlabel() == "Roughness of each kernel"
    for ax, weight in zip(blocks, weights.values(), strict=True):
        (image,) = ax.get_images()
        assert image.get_clim() == pytest.approx((-limit, limit))
        mosaic = image.get_array()
        assert mosaic.shape == (3 * 4 - 1, 16 * 4 - 1)
        for kernel in range(16):
            for channel in range(3):
                part = mosaic[4 * channel : 4 * channel + 3, 4 * kernel : 4 * kernel + 3]
                np.testing.assert_allclose(part, weight[kernel, channel])
        gaps = np.ma.getmaskarray(mosaic)
        assert gaps.sum() == gaps.size - weight.numel()
        texts = [float(text.get_text()) for text in ax.get_xticklabels()]
        assert texts == pytest.approx(roughness(weight).mean(dim=1).tolist(), abs=0.0051)
        assert list(ax.get_xticks()) == [4 * kernel + 1 for kernel in range(16)]
        assert [text.get_text() for text in ax.get_yticklabels()] == ["red", "green", "blue"]
    assert drawn(figure)


@pytest.mark.parametrize(("shape", "networks"), [((16, 3, 5, 5), 6), ((1, 1, 7, 7), 1)])
def test_other_shapes_and_numbers_of_kernels(shape, networks):
    figure = kernels_figure({f"Network {number}": number * torch.randn(shape) for number in range(networks)})
    assert len(figure.axes) == networks + 1
    assert drawn(figure)


def test_without_any_network_the_figure_says_so():
    assert first_layers({}) == mean_responses({}) == {}
    made = kernels_figure({})
    assert made.get_suptitle() == "No network of this kind is stored."
    assert drawn(made)


# ---- frequency responses


@pytest.mark.parametrize("count", [1, 8])
def test_responses_share_a_scale_and_are_labelled_in_bins(count):
    responses = {f"Network {number}": (number + 1) * torch.rand(32, 32) for number in range(count)}
    figure = responses_figure(responses)
    *pictures, bar = figure.axes
    assert bar.get_ylabel() == "Mean magnitude"
    assert [ax.get_title() for ax in pictures] == list(responses)
    assert figure.get_supxlabel() == "Horizontal frequency (DFT bins)"
    assert figure.get_supylabel() == "Vertical frequency (DFT bins)"
    highest = max(response.max().item() for response in responses.values())
    for ax, response in zip(pictures, responses.values(), strict=True):
        (image,) = ax.get_images()
        assert image.get_clim() == (0, highest)
        np.testing.assert_array_equal(image.get_array(), response)
        (circle,) = ax.patches
        assert (circle.get_center(), circle.get_radius()) == ((0, 0), 12)
    assert drawn(figure)


def test_frequency_zero_is_where_the_axes_say():
    response = torch.zeros(32, 32)
    response[16, 16] = 1  # as `frequency_response` has it
    response[16 - 5, 16 + 3] = 2  # 5 bins up, 3 to the right
    image = responses_figure({"a": response}).axes[0].get_images()[0]
    left, right, bottom, top = image.get_extent()
    for value, across, down in ((1, 0, 0), (2, 3, -5)):
        row, column = np.argwhere(image.get_array() == value)[0]
        assert left + (column + 0.5) * (right - left) / 32 == across
        assert top + (row + 0.5) * (bottom - top) / 32 == down  # the first row is at the top
    assert image.origin == "upper"


def test_kernels_are_judged_by_natural_less_adversarial():
    trained = {
        "vanilla": (0.9, 1.0, 1.1),
        "adversarial": (0.7, 0.8, 0.85),
        "batchnorm": (0.9, 1.1, 0.8),
        "adversarial_batchnorm": (1.0, 0.9, 1.0),
        "vanilla5": (0.8, 0.9, 0.8),
        "adversarial5": (0.4, 0.5, 0.1),
    }
    table = by_hand({(name, seed): [one, one] for name, ones in trained.items() for seed, one in enumerate(ones)})
    board = scoreboard({"fig3": table})
    assert board["verdict"].to_dict() == {
        "fig3-roughness-adversarial": "reproduced",
        "fig3-roughness-adversarial_batchnorm": "inconclusive",
        "fig3-roughness-clearer": "inconclusive",
    }
    published = ["not available to us", "not available to us", "not in the paper"]
    assert board["paper"].tolist() == published
    assert board.loc["fig3-roughness-adversarial", "ours"] == with_interval(*interval([0.2, 0.2, 0.25]))
    clearer = welch([0.4, 0.4, 0.7], [0.2, 0.2, 0.25])
    assert board.loc["fig3-roughness-clearer", "ours"] == with_interval(clearer.mean, clearer.low, clearer.high)
