"""Fig. 1 and Table 1: the paper's hypothesis, and networks trained on one frequency band.

Table 1 tests networks that were trained on the LFC or the HFC alone on original images. The chapter repeats it with two
scalings of the bands, and adds the accuracy on the same band of test images.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd
from pydantic import Field
from torch import Tensor

from hfclib.charts import (
    CHART,
    PICTURES_WIDTH,
    STYLE,
    VIBRANT,
    blank,
    chance,
    chance_handle,
    drawn_in,
    legend,
    panels,
    pictures,
)
from hfclib.conditions import PAPER_RADII
from hfclib.frequency import split
from hfclib.paper.bands import OWN_BAND, SCALINGS, TABLE1_MEASURES, band_results, fig1_recipes
from hfclib.paper.chapter import Chapter
from hfclib.paper.paper_values import TABLE1_HFC, TABLE1_HFC_AT_MOST, TABLE1_VALUES
from hfclib.paper.parameters import Seeds, SeveralSeeds
from hfclib.paper.tables import decimals, gather, mean_sd
from hfclib.training.recipe import Recipe
from hfclib.transforms import rescaled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LFC_ON_ORIGINALS = [TABLE1_VALUES[f"lfc{radius}", "test"] for radius in PAPER_RADII]


def table1_rows(final: pd.DataFrame) -> pd.DataFrame:
    """The paper's Table 1 beside ours, and the accuracy on the same band of test images, which it does not give.

    Args:
        final: as in `band_results`; one row per network, text, ours mean ± sample standard deviation over seeds.
    """
    index = ["variant", "trained on", "train_radius"]
    results = band_results(final)
    table = results.pivot_table("value", index, "tested on", aggfunc=mean_sd, sort=False)
    for name, measure in TABLE1_MEASURES.items():
        values = [TABLE1_VALUES.get((variant, measure)) for variant in table.index.unique("variant")]
        table[f"{name}, paper"] = [decimals(one) if one else TABLE1_HFC[measure] for one in values]
    columns = [name for measure in TABLE1_MEASURES for name in (measure, f"{measure}, paper")]
    table = table.droplevel("variant")[[*columns, OWN_BAND]]
    return table.rename_axis(index={"train_radius": "radius"}, columns=None)


def table1_figure(final: pd.DataFrame) -> Figure:
    """Test accuracy of networks trained on one band, against the radius: on original images and on their own band.

    Args:
        final: as in `band_results`; points are means over seeds, bars one sample standard deviation.
    """
    import seaborn as sns  # here, with scipy.stats: nearly a second that every notebook and command would wait for

    rows = band_results(final).query("split == 'test'")
    kinds = [f"{band} {scaling}" for scaling in SCALINGS.values() for band in ("LFC", "HFC")]
    colours = dict(zip(kinds, sns.color_palette("colorblind", len(kinds)), strict=True))
    with drawn_in(CHART):
        figure, (ax,) = panels([""], height=3.6, beside=2.6)
        columns = {"x": "train_radius", "y": "value", "hue": "trained on", "style": "tested on"}
        bars = {"errorbar": "sd", "err_style": "bars", "err_kws": {"capsize": 3}}
        order = {"hue_order": rows["trained on"].unique(), "style_order": [*TABLE1_MEASURES, OWN_BAND][1:]}
        sns.lineplot(rows, **columns, **bars, **order, palette=colours, markers=["o", "s"], ax=ax)
        ax.get_legend().remove()
        looks = {"color": "0.2", "ls": "", "marker": "D", "ms": 8, "mfc": "none"}
        ax.plot(PAPER_RADII, _LFC_ON_ORIGINALS, **looks, label="paper: LFC")
        ax.axhline(TABLE1_HFC_AT_MOST, color="0.2", lw=1, ls="-.", label="paper: HFC, at most")
        chance(ax)
        ax.set(xlabel="Radius (DFT bins)", ylabel="Test accuracy (share of images)", ylim=(0, 1), xticks=PAPER_RADII)
        handles, labels = ax.get_legend_handles_labels()
        second = labels.index("tested on")  # heads the second column
        legend(figure, [*handles[:second], chance_handle(), *handles[second:]], columnspacing=1, handlelength=1.5)
    return figure


def bands_figure(images: Tensor, recipes: Mapping[str, Recipe]) -> Figure:
    """Images as networks trained on one band get them: one row per image, one column per recipe.

    Args:
        images: (N, 3, H, W) in [0, 1], which stand in the first column.
        recipes: networks of `fig1_recipes`.
    """
    columns = {"original": images}
    for recipe in recipes.values():
        data = recipe.data
        title = data.train_band.upper() + "\n/ max" * (data.rescale == "max") + f"\nr = {data.train_radius}"
        columns[title] = rescaled(split(images, data.train_radius)[data.train_band == "hfc"], data.rescale)
    side = min(PICTURES_WIDTH / len(columns), 1.3)
    return pictures(list(columns), list(columns.values()), side=side)


def hypothesis_figure(image: Tensor, radius: float) -> Figure:
    """The paper's hypothesis as a diagram: an image is the sum of two parts; a person sees one, a network both.

    Args:
        image: (3, H, W) in [0, 1].
        radius: DFT bins.
    """
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    lfc, hfc = split(image[None], radius)
    pictures = {  # left edge and bottom of each, in the diagram's units
        "image $x$": (image, 0.1, 1.55),
        "low-frequency part $x_l$\n(the semantic one)": (lfc[0], 2.6, 2.7),
        "high-frequency part $x_h$\n(stretched for the eye)": (rescaled(hfc, "range")[0], 2.6, 0.35),
    }
    blue, red, grey = VIBRANT["blue"], VIBRANT["red"], "0.3"
    starts = ((1.45, 2.3), (1.45, 2.1), (3.95, 3.35), (3.95, 3.1), (3.95, 1.0), (6.7, 3.2), (7.6, 1.75))
    ends = ((2.55, 3.3), (2.55, 1.1), (5.2, 3.3), (5.2, 1.2), (5.2, 0.95), (7.6, 2.6), (6.7, 1.15))
    colours = (grey, grey, blue, red, red, blue, red)
    centred = {"ha": "center", "va": "center"}
    with drawn_in(STYLE):
        figure = blank(8.6, 4.0)
        ax = figure.subplots()
        ax.set_aspect("equal")
        ax.set_axis_off()
        for text, (picture, left, bottom) in pictures.items():
            shown = picture.clamp(0, 1).permute(1, 2, 0).numpy()
            ax.imshow(shown, extent=(left, left + 1.3, bottom, bottom + 1.3), interpolation="none", zorder=2)
            ax.text(left + 0.65, bottom - 0.05, text, ha="center", va="top")
        ax.set(xlim=(0, 9), ylim=(-0.3, 4.15))
        frame = {"boxstyle": "round,pad=0.06", "fc": "white", "lw": 2}
        for text, bottom, colour in (("person", 2.85, blue), ("network", 0.55, red)):
            ax.add_patch(FancyBboxPatch((5.3, bottom), 1.3, 0.9, ec=colour, **frame))
            ax.text(5.95, bottom + 0.45, text, color=colour, **centred)
        box = {"boxstyle": "round,pad=0.5", "fc": "0.93", "ec": "0.4"}
        ax.text(8.2, 2.15, "label $y$\n“frog”", bbox=box, **centred)
        for start, end, colour in zip(starts, ends, colours, strict=True):
            ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=14, color=colour, lw=1.6))
        ax.text(7.35, 3.15, "gives", color=blue)
        ax.text(7.3, 1.15, "is trained on", color=red)
    return figure


class Fig1Parameters(SeveralSeeds):
    """The parameters of `notebooks/fig1.ipynb`."""

    seeds: Seeds = Field((0,), title="which runs of each recipe")


FIG1 = Chapter(
    name="fig1",
    question="What can a network learn from one half of an image?",
    topic="hypothesis",
    paper="Fig. 1, Table 1",
    blog="Fig. 1",
    figures={"fig1-table1": "training", "fig1-hypothesis": "images", "fig1-trained-on": "images"},
    recipes=fig1_recipes,
    parameters=Fig1Parameters,
    needs_weights=("hfc4max",),
    evidence=partial(gather, which="final"),
)
