"""hfclib.plots_kernels: every weight in its place and colour, right axes and units, and no complaint at the edges."""

import numpy as np
import pandas as pd
import pytest
import torch

from hfclib.kernels import roughness
from hfclib.paper.fig3 import FIG3_TITLES, colour_limit, kernels_figure, layers_figure, responses_figure
from hfclib.paper.show import show_figure


def drawn(figure):
    """Draw for real: warnings of the layout come only then, and are errors."""
    return show_figure(figure).data.startswith(b"\x89PNG")


@pytest.fixture
def weights():
    return {"First": torch.randn(16, 3, 3, 3), "Second": 0.1 * torch.randn(16, 3, 3, 3)}


# ---- kernels


def test_the_colour_scale_ends_at_the_99th_percentile_of_all():
    found = colour_limit({"a": torch.arange(-50.0, 0).reshape(1, 1, 5, 10), "b": torch.arange(51.0, 101)})
    assert found == pytest.approx(np.quantile(np.arange(1, 101), 0.99))
    assert colour_limit({}) == 1
    assert colour_limit({"a": torch.zeros(4, 3, 3, 3)}) == 1


def test_each_weight_is_in_its_place_on_one_scale(weights):
    figure = kernels_figure(weights, 0.7)
    *blocks, bar = figure.axes
    assert bar.get_ylabel() == "Weight"
    assert [ax.get_title(loc="left") for ax in blocks] == list(weights)
    assert figure.get_supxlabel() == "Roughness of each kernel"
    for ax, weight in zip(blocks, weights.values(), strict=True):
        (image,) = ax.get_images()
        assert image.get_clim() == (-0.7, 0.7)
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


@pytest.mark.parametrize("shape", [(16, 3, 5, 5), (4, 3, 3, 3), (1, 3, 3, 3), (2, 1, 7, 7)])
@pytest.mark.parametrize("networks", [1, 6])
def test_other_shapes_and_numbers_of_kernels(shape, networks):
    figure = kernels_figure({f"Network {number}": torch.randn(shape) for number in range(networks)}, 1.0)
    assert len(figure.axes) == networks + 1
    assert drawn(figure)


def test_kernels_of_zeros_are_drawn():
    assert drawn(kernels_figure({"Zeros": torch.zeros(4, 3, 3, 3)}, 1.0))


@pytest.mark.parametrize("figure", [lambda: kernels_figure({}, 1.0), lambda: responses_figure({})])
def test_without_any_network_the_figure_says_so(figure):
    made = figure()
    assert made.get_suptitle() == "No network of this kind is stored."
    assert drawn(made)


# ---- frequency responses


@pytest.mark.parametrize("count", [1, 3, 8])
def test_responses_share_a_scale_and_are_labelled_in_bins(count):
    found = {f"Network {number}": (number + 1) * torch.rand(32, 32) for number in range(count)}
    figure = responses_figure(found)
    *pictures, bar = figure.axes
    assert bar.get_ylabel() == "Mean magnitude"
    assert [ax.get_title() for ax in pictures] == list(found)
    assert figure.get_supxlabel() == "Horizontal frequency (DFT bins)"
    assert figure.get_supylabel() == "Vertical frequency (DFT bins)"
    highest = max(response.max().item() for response in found.values())
    for ax, response in zip(pictures, found.values(), strict=True):
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


# ---- layer by layer


def layer_table(seeds_by_panel, layers=4):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {
                "variant": variant,
                "seed": seed,
                "state": state,
                "layer": layer,
                "roughness": rng.uniform(0, 1),
                "share": rng.uniform(),
            }
            for variant, seeds in seeds_by_panel.items()
            for seed in seeds
            for state in ("initial", "trained")
            for layer in range(1, layers + 1)
        ]
    )


@pytest.mark.parametrize(
    "seeds_by_panel",
    [{"vanilla": (0,)}, {"adversarial5": (3,), "vanilla": (0, 1, 2)}, dict.fromkeys(FIG3_TITLES, (0, 1))],
)
def test_layers_show_means_over_seeds_before_a_band_of_all_initialisations(seeds_by_panel):
    table = layer_table(seeds_by_panel)
    figure = layers_figure(table)
    left, right = figure.axes
    assert (left.get_ylabel(), right.get_ylabel()) == ("Roughness", "Share of energy at r >= 12")
    shown = [variant for variant in FIG3_TITLES if variant in seeds_by_panel]
    for ax, measure in ((left, "roughness"), (right, "share")):
        assert ax.get_xlabel() == "Layer"
        assert [one.get_label() for one in ax.containers] == [FIG3_TITLES[variant] for variant in shown]
        for container, variant in zip(ax.containers, shown, strict=True):
            line, _, (bars,) = container
            own = table.query(f"variant == '{variant}' and state == 'trained'").groupby("layer")[measure]
            assert list(line.get_xdata()) == [1, 2, 3, 4]
            assert list(line.get_ydata()) == pytest.approx(own.mean().tolist())
            spread = [(top - bottom) / 2 for (_, bottom), (_, top) in bars.get_segments()]
            assert spread == pytest.approx(own.std().fillna(0).tolist(), abs=1e-12)
        start = table.query("state == 'initial'").groupby("layer")[measure]
        heights = ax.collections[0].get_paths()[0].vertices[:, 1]
        assert heights.max() == pytest.approx(start.max().max())
        assert heights.min() == pytest.approx(start.min().min())
        assert ax.get_ylim()[0] == 0
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(legend) == sorted(["at initialisation", *(FIG3_TITLES[variant] for variant in shown)])
    assert drawn(figure)


def test_a_network_has_one_colour_and_marker_whoever_else_is_shown():
    looks = set()
    for variants in ({"adversarial": (0,)}, dict.fromkeys(FIG3_TITLES, (0,))):
        for ax in layers_figure(layer_table(variants)).axes:
            line = next(one[0] for one in ax.containers if one.get_label() == "Adversarial")
            looks.add((line.get_color(), line.get_marker()))
    assert len(looks) == 1
    lines = [one[0] for one in ax.containers]
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == len(FIG3_TITLES)
