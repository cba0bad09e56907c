"""A planted signal: does the accuracy on the LFC reveal it, as the paper's proposal to report that accuracy suggests?

Networks on CIFAR-10 whose training and test images carry a pattern per class that is too faint to see and has no low
frequency, beside the same networks without it.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from pydantic import Field

from hfclib.batching import logits
from hfclib.charts import (
    CHART,
    NETWORK_COLOURS,
    PICTURES_WIDTH,
    STYLE,
    VIBRANT,
    Look,
    blank,
    drawn_in,
    legend,
    lines,
    panels,
    show_image,
)
from hfclib.data import DATA_SETS, to_float
from hfclib.paper.chapter import Chapter
from hfclib.paper.parameters import SeveralSeeds, whole
from hfclib.paper.presets import Preset, base_recipe, fig4_recipes
from hfclib.paper.tables import CONDITIONS, contrast_rows, decimals, gather, mean_sd, select, table_cells, text_table
from hfclib.runs.collect import Runs
from hfclib.training.planted import PLANTED_RADIUS, planted
from hfclib.training.recipe import RADII, Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

AMPLITUDE = 2 / 255
SIGNAL_NETWORKS = {"batchnorm": "with BatchNorm", "vanilla": "without BatchNorm"}


def planted_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """Networks with the signal and without: vanilla and batchnorm of Fig. 4, planted-vanilla and planted-batchnorm.

    The latter two have a pattern per class (`hfclib.training.planted.planted`) of amplitude 2/255 in the training and
    test images of CIFAR-10.

    Source: the paper's conclusion, which proposes to report the accuracy on the LFC. The signal is ours.
    """
    plain = {name: fig4_recipes(preset)[name] for name in ("vanilla", "batchnorm")}
    names = {f"planted-{name}": recipe for name, recipe in plain.items()}
    start = base_recipe(preset).name
    return plain | {name: recipe.with_(name=f"{start}-{name}", planted=AMPLITUDE) for name, recipe in names.items()}


def planted_results(runs: Runs) -> pd.DataFrame:
    """The chapter's table: the rows of `gather(runs, "final")`, with the networks as claims call them.

    Args:
        runs: by variant, at least one. Those with the signal have it in training and test images.
    """
    return gather(Runs({_called(name): own for name, own in runs.items()}), "final")


def _called(variant: str) -> str:
    """What claims call a variant: a contrast is arithmetic, in which a hyphen is a minus."""
    return variant.replace("-", "_")


# ---- what the notebook shows


def signal_figure() -> Figure:
    """A test image without and with the signal, the signal alone magnified, and where in the spectrum it lies."""
    from matplotlib.patches import Circle

    images, labels = (part[:1] for part in DATA_SETS["cifar10"].embedded("test"))
    clean, with_signal = to_float(images), planted(images, labels, AMPLITUDE)
    signal = with_signal - clean
    strength = torch.fft.fftshift(torch.fft.fft2(signal[0]).abs().mean(dim=0))
    with drawn_in(STYLE):
        figure = blank(PICTURES_WIDTH, 3.0)
        first, second, third, last = figure.subplots(1, 4)
        show_image(first, clean[0], "image")
        show_image(second, with_signal[0], "with the signal")
        show_image(third, 0.5 + signal[0] / (2 * AMPLITUDE), "signal, magnified")
        last.imshow(strength.numpy(), cmap="Greys", extent=(-16.5, 15.5, 15.5, -16.5), interpolation="nearest")
        last.add_patch(Circle((0, 0), PLANTED_RADIUS, fill=False, color=NETWORK_COLOURS["batchnorm"], lw=2))
        last.set_title(f"its spectrum, and r = {PLANTED_RADIUS}", fontsize=12)
        last.set(xticks=[-16, 0, 15], yticks=[-16, 0, 15], xlabel="DFT bins")
    return figure


def planted_rows(results: pd.DataFrame) -> pd.DataFrame:
    """Accuracies with and without the signal on the LFC at every radius, and on whole test images.

    Args:
        results: from `planted_results`.
    Returns:
        Columns variant, seed, cell ("test", "clean", "L1" to "L22"), radius, value.
    """
    rows = select(results, RADII, *CONDITIONS["controlled"]).query("band in ('lfc', 'x') and split != 'train'")
    return rows[["variant", "seed", "cell", "radius", "value"]]


def planted_figure(rows: pd.DataFrame) -> Figure:
    """Accuracy on the LFC against its radius, with and without the signal, one panel per network.

    Args:
        rows: from `planted_rows`.
    Returns:
        A Figure; lines are means over seeds, shades from the lowest to the highest seed. Horizontal lines: accuracy on
        whole test images; dotted, on clean ones.
    """
    looks = {"planted_": Look(VIBRANT["orange"]), "": Look("0.5")}  # a colour that no network has
    words = {"planted_": "with the signal", "": "without"}
    whole = {"test": ("--", "test images"), "clean": (":", "clean test images")}
    drawn: dict[str, Line2D] = {}
    with drawn_in(CHART):
        titles = [title[0].upper() + title[1:] for title in SIGNAL_NETWORKS.values()]
        figure, axes = panels(titles, height=2.8, beside=2.4, xlabel="Radius of the LFC (DFT bins)", ylabel="Accuracy")
        for (data, look), (ax, network) in product(looks.items(), zip(axes, SIGNAL_NETWORKS, strict=True)):
            own = rows[rows["variant"] == data + network]
            lines(ax, own[own["radius"].notna()], "radius", "variant", {data + network: look}, spread=("pi", 100))
            drawn.setdefault(data, look.handle(f"LFC, {words[data]}", lw=2))
            for cell, (dashes, images) in whole.items():
                level = own.loc[own["cell"] == cell, "value"].mean()
                if not np.isnan(level):
                    ax.axhline(level, color=look.colour, ls=dashes)
                    drawn.setdefault(data + cell, replace(look, dashes=dashes).handle(f"{images}, {words[data]}"))
        for ax in axes:
            ax.axvline(PLANTED_RADIUS, color="0.3", lw=1, ls="-.")
            ax.set(ylim=(0, 1.02))
        legend(figure, [*drawn.values(), Look("0.3", dashes="-.").handle("signal beyond", lw=1)], columns=1)
    return figure


def planted_table(results: pd.DataFrame) -> pd.DataFrame:
    """What a report would show of networks with and without the signal.

    Args:
        results: from `planted_results`.
    Returns:
        One row per network and measure; accuracy with and without the signal as mean ± sd, and by how much the signal
        widens the gap to the test accuracy, with its 95 % interval over seeds; text.
    """
    rows = {}
    for (network, title), cell in product(
        SIGNAL_NETWORKS.items(), ("test", "clean", *(f"L{radius}" for radius in (4, 8, 12, 14, 16, 18, 20, 22)))
    ):
        gaps = (f"({variant}.test - {variant}.{cell})" for variant in (f"planted_{network}", network))
        rows[title, cell] = {
            "with the signal": f"planted_{network}.{cell}",
            "without": f"{network}.{cell}" if cell != "clean" else "",
            "gap to test wider by": " - ".join(gaps) if cell not in ("test", "clean") else "",
        }
    texts = contrast_rows(rows, table_cells(results), "controlled", alone=mean_sd)
    return text_table(texts, ["network", "accuracy on"])


def swapped(runs: Runs, count: int = 500) -> pd.DataFrame:
    """What a network with the signal predicts when the signal is taken away, or is that of another class.

    Args:
        runs: the chapter's; the first seed of each network with the signal is asked.
        count: the first so many test images.
    Returns:
        One row per network and signal; the share of images predicted as their own class, and as the signal's; text.
    """
    images, labels = (part[:count] for part in DATA_SETS["cifar10"].embedded("test"))
    other = (labels + 1) % 10
    rows = {}
    for network, title in SIGNAL_NETWORKS.items():
        model = runs[f"planted-{network}"][0].model()
        for signal, classes, fed in (
            ("its own", labels, planted(images, labels, AMPLITUDE)),
            ("none", labels, to_float(images)),
            ("that of the next class", other, planted(images, other, AMPLITUDE)),
        ):
            predicted = logits(model, fed).argmax(dim=1)
            own, signals = ((predicted == wanted).float().mean().item() for wanted in (labels, classes))
            cell = decimals(signals, 2) if signal == "that of the next class" else "\u2013"
            rows[title, signal] = {"own class": decimals(own, 2), "the signal's class": cell}
    return text_table(rows, ["network", "signal"])


# ---- the chapter


class PlantedParameters(SeveralSeeds):
    """The parameters of `notebooks/planted.ipynb`."""

    radius: whole(1, RADII[-1], "a whole number of DFT bins") = Field(
        12, title="the LFC whose accuracy is computed by hand"
    )


PLANTED = Chapter(
    name="planted",
    question="Does the LFC accuracy reveal a planted signal?",
    topic="planted signal",
    paper="conclusion",
    figures={"planted-lfc": "training", "planted-signal": "images"},
    recipes=planted_recipes,
    parameters=PlantedParameters,
    required=tuple(planted_recipes()),
    needs_weights=("planted-batchnorm",),
    evidence=planted_results,
    measures=r"test|clean|L\d+",
    cell_variants=lambda preset: list(map(_called, planted_recipes(preset))),
)
