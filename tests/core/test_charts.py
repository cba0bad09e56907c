"""The charts of chapters, and what reports share of them."""

import numpy as np
import pandas as pd
import pytest
import torch

from hfclib import charts
from hfclib.charts import Look

ROWS = pd.DataFrame(
    [
        (variant, radius, value + seed / 10)
        for variant, value in (("a", 0.2), ("b", 0.5))
        for radius in (4, 8)
        for seed in (0, 1, 2)
    ],
    columns=["variant", "radius", "value"],
)


def test_a_network_that_no_list_names_has_a_look_of_its_own_in_a_figure():
    looks = charts.network_looks(["vanilla", "mine", "yours", "batchnorm"])
    assert looks["vanilla"] == charts.network_looks(["vanilla"])["vanilla"]
    assert len(set(looks.values())) == 4


def test_panels_wrap_in_a_figure_as_wide_as_a_phone_can_show():
    figure, axes = charts.panels(["one", "two", "three"], xlabel="x", ylabel="y")
    assert figure.get_figwidth() == charts.WIDTH
    assert [ax.get_title() for ax in axes] == ["one", "two", "three"]
    assert [ax.get_xlabel() for ax in axes] == ["", "x", "x"]  # below the last of each column
    assert figure.axes == axes
    assert axes[0].get_subplotspec().rowspan.start == axes[1].get_subplotspec().rowspan.start
    assert axes[2].get_subplotspec().rowspan.start == 1


@pytest.mark.parametrize("bars", [False, True])
def test_lines_are_means_and_their_spread_one_sample_standard_deviation(bars):
    _, (ax,) = charts.panels([""], xlabel="kept")
    looks = {"b": Look("#ff0000", "o"), "a": Look("#0000ff", "s", "--"), "missing": Look("black", "D")}
    charts.lines(ax, ROWS, "radius", "variant", looks, bars=bars)
    first, second = (next(line for line in ax.lines if line.get_marker() == marker) for marker in "os")
    assert first.get_ydata() == pytest.approx([0.6, 0.6])
    assert second.get_ydata() == pytest.approx([0.3, 0.3])
    assert ax.get_xlabel() == "kept"
    half = np.std([0, 0.1, 0.2], ddof=1)
    drawn = ax.collections[0].get_paths()[0].vertices if not bars else np.vstack(ax.containers[0][2][0].get_segments())
    assert (drawn[:, 1].min(), drawn[:, 1].max()) == pytest.approx((0.6 - half, 0.6 + half))


def test_intervals_stand_from_the_first_category_at_the_top_to_the_last():
    rows = pd.DataFrame(
        [("second", "x", 0.4, 0.3, 0.5), ("first", "x", 0.2, -np.inf, np.inf)],
        columns=["name", "hue", "mean", "low", "high"],
    )
    rows["name"] = pd.Categorical(rows["name"], ["first", "second", "third"])
    _, (ax,) = charts.panels([""])
    charts.intervals(ax, rows, "name", "hue", {"x": Look("black", "o")})
    assert [label.get_text() for label in ax.get_yticklabels()] == ["first", "second", "third"]
    assert ax.lines[0].get_xydata().tolist() == [[0.2, 0], [0.4, 1]]
    segments = ax.collections[0].get_segments()
    assert len(segments[0]) == 0  # no interval, and so no line
    assert segments[1].tolist() == [[0.3, 1], [0.5, 1]]
    bottom, top = ax.get_ylim()
    assert bottom > 2 > 0 > top


def test_curves_have_the_colour_of_their_radius_and_published_values_stand_at_the_last_epoch():
    cells = [("train", "x", "train", None), ("L4", "lfc", "test", 4), ("H4", "hfc", "test", 4)]
    rows = pd.DataFrame(
        [(*cell, epoch, epoch / 10) for cell in cells for epoch in (1, 2)],
        columns=["cell", "band", "split", "radius", "epoch", "value"],
    ).astype({"radius": "Int64", "epoch": "Int64"})
    _, (ax,) = charts.panels([""])
    charts.accuracy_by_epoch(ax, rows, {"H4": 0.7, "L8": 0.1})
    looks = charts.cell_looks(rows)
    assert looks["train"].colour == "0.6"
    assert looks["L4"].colour == looks["H4"].colour == charts.radius_colour(4)
    (hollow,) = [line for line in ax.lines if line.get_marker() == "D"]
    assert hollow.get_xydata().tolist() == [[2, 0.7]]
    words = [handle.get_label() for handle in charts.epoch_handles(rows, ("hfc",), {4: " (raw)"})]
    assert words == ["training images", "LFC", "HFC", "radius 4 (raw)", "chance (.10)", "paper, end: HFC"]


def test_pictures_stand_in_named_rows_and_columns_clipped():
    images = torch.tensor([-1.0, 0.5, 2.0]).view(3, 1, 1, 1).expand(3, 3, 2, 2)
    figure = charts.pictures(["left", "right"], [images[:2], images[1:]], ["up", "down"], side=1)
    shown = [ax.get_images()[0].get_array()[0, 0, 0] for ax in figure.axes]
    assert shown == [0, 0.5, 0.5, 1]
    assert [ax.get_title() for ax in figure.axes] == ["left", "right", "", ""]
    assert [ax.get_ylabel() for ax in figure.axes] == ["up", "", "down", ""]
