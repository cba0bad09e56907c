"""The trade-off between accuracy and robustness that the paper derives from the two components (section 3).

A network f is right at (x, y) if f(x) = y. It is right and robust there, for a metric d and a size eps, if f(x') = y
for every array x' with d(x, x') <= eps, in [0, 1] or not. x_l is the LFC of x at some radius.

Corollary 1: if f(x) != f(x_l), then f is not right and robust at (x, y) for any eps >= d(x, x_l), since x_l is one of
the x'. The chapter measures d(x, x_l), how often f(x) != f(x_l), and at how many images the corollary applies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from torch import Tensor

from hfclib.charts import CHART, Look, drawn_in, legend, lines, network_looks, panels
from hfclib.conditions import PAPER_RADII
from hfclib.data.cifar import embedded, to_float
from hfclib.frequency import split
from hfclib.paper.chapter import Chapter
from hfclib.paper.misalignment import fig2_recipes, predicted_images, stored_predictions
from hfclib.paper.parameters import SeveralSeeds, number, several
from hfclib.paper.tables import cells_of_shares, decimals, mean_sd
from hfclib.runs.collect import Runs
from hfclib.runs.predictions import Predictions, predictions_of
from hfclib.runs.store import Run
from hfclib.training.recipe import RADII

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_METRIC_TITLES = {"l2": "L2 distance", "linf": "Linf distance"}


def distances(images: Tensor, radii: Sequence[float]) -> dict[str, Tensor]:
    """The distance of each image from its LFC.

    Args:
        images: (N, C, H, W) float in [0, 1].
        radii: DFT bins.
    Returns:
        By metric, "l2" and "linf": (len(radii), N), in units of pixels in [0, 1]. An LFC may leave [0, 1]; it is not
        clipped, since the corollary is about x_l itself.
    Raises:
        TypeError, ValueError: as `split`.
    """
    blocks: dict[str, list[Tensor]] = {"l2": [], "linf": []}
    for block in images.split(128):  # whose components stay in the processor's cache
        differences = [split(block, radius)[1].flatten(1) for radius in radii]
        for metric, order in (("l2", 2), ("linf", torch.inf)):
            norms = [torch.linalg.vector_norm(difference, order, dim=1) for difference in differences]
            blocks[metric].append(torch.stack(norms))
    return {metric: torch.cat(ones, dim=1) for metric, ones in blocks.items()}


def changed_radius(predictions: Predictions, radii: Sequence[int], labels: Tensor | None = None) -> Tensor:
    """At which radii the predictions for an image and its LFC differ, raw, running averages (the paper's A2).

    Args:
        predictions: of a network for N images.
        radii: DFT bins.
        labels: (N,) int64; with them, only images that are classified correctly count.
    Returns:
        (len(radii), N) bool.
    """
    changed = torch.stack([predictions.on("lfc", radius) for radius in radii]) != predictions.on("x")
    return changed if labels is None else changed & (predictions.on("x") == labels)


def changed_by_run(run: Run, labels: Tensor | None = None) -> Tensor:
    """`changed_radius` of a run's network at every radius, (22, N) bool.

    From r = 14 on, where few predictions change, those for the image and for its LFC are both made in float32: rounding
    to bfloat16 alone changes about as many.
    """
    parts = []
    for radii, exact in ((RADII[:13], False), (RADII[13:], True)):
        found = predictions_of(run, [("x",), *(("lfc", radius) for radius in radii)], exact=exact)
        parts.append(changed_radius(found, radii, labels))
    return torch.cat(parts)


def ruled_out(distance: Tensor, changed: Tensor, eps: Sequence[float]) -> Tensor:
    """The share of images at which Corollary 1 rules out being right and robust.

    Args:
        distance: (R, N) between an image and its LFC at each of R radii, in one metric.
        changed: (R, N) bool, from `changed_radius` or `changed_by_run`.
        eps: sizes, 0 or more, in the units of `distance`.
    Returns:
        (len(eps),) in [0, 1]: an image counts if at any radius its prediction changes and the distance is <= eps.
    Raises:
        ValueError: shapes differ, or an eps is negative or not a number.
    """
    if distance.shape != changed.shape or distance.ndim != 2:
        raise ValueError(f"expected (R, N) twice, got {tuple(distance.shape)} and {tuple(changed.shape)}")
    if not all(one >= 0 for one in eps):
        raise ValueError(f"expected every eps to be at least 0, got {list(eps)}")
    smallest = torch.where(changed, distance, torch.inf).amin(dim=0)
    return torch.stack([(smallest <= one).float().mean() for one in eps])


def steps_table(
    distance: Tensor,
    changed: Mapping[str, Sequence[Tensor]],
    radii: Sequence[int],
    titles: Mapping[str, str],
) -> pd.DataFrame:
    """How far an image is from its LFC, and how often the prediction changes: one row per radius.

    Args:
        distance: (R, N) in Linf, from `distances`.
        changed: from `changed_by_run`, by variant one for each run.
        radii: the R radii.
        titles: of the networks, from `network_titles`, here and below.
    Returns:
        Text: the median distance in 255ths of the pixel range, the share of images within 8/255, and for each network
        the share of images whose prediction changes, a mean over runs.
    """
    columns = {
        "median distance (Linf)": [f"{255 * one:.0f}/255" for one in distance.median(dim=1).values.tolist()],
        "within 8/255": [decimals(one) for one in (distance <= 8 / 255).double().mean(dim=1).tolist()],
    }
    for variant, by_run in changed.items():
        share = torch.stack(list(by_run)).double().mean(dim=(0, 2)).tolist()
        columns[f"prediction changes: {titles[variant]}"] = [decimals(value) for value in share]
    return pd.DataFrame(columns, index=pd.Index(radii, name="radius"))


def ruled_out_curves(
    distance: Mapping[str, Tensor], changed: Mapping[str, Sequence[Tensor]], points: int = 80
) -> pd.DataFrame:
    """`ruled_out` on a logarithmic grid of sizes.

    Args:
        distance: from `distances`.
        changed: from `changed_by_run`, by variant one for each run.
        points: sizes per metric, from the smallest distance, but at least 1e-4, to the largest.
    Returns:
        One row per (metric, variant, eps) and run: share, in [0, 1].
    """
    rows = []
    for metric, values in distance.items():
        sizes = np.geomspace(max(float(values.min()), 1e-4), float(values.max()), points).tolist()
        for variant, where in ((variant, where) for variant, by_run in changed.items() for where in by_run):
            shares = ruled_out(values, where, sizes).tolist()
            rows.append(pd.DataFrame({"metric": metric, "variant": variant, "eps": sizes, "share": shares}))
    return pd.concat(rows, ignore_index=True)


def _size_text(eps: float) -> str:
    return f"{255 * eps:.4g}/255"


def ruled_out_table(
    distance: Tensor,
    changed: Mapping[str, Sequence[Tensor]],
    eps: Sequence[float],
    titles: Mapping[str, str],
) -> pd.DataFrame:
    """`ruled_out` as text, mean ± sd over runs: one row per size, one column per network; `changed` as above."""
    shares = {
        titles[variant]: pd.DataFrame([ruled_out(distance, where, eps).tolist() for where in by_run]).agg(mean_sd)
        for variant, by_run in changed.items()
    }
    return pd.DataFrame(shares).set_axis(pd.Index(map(_size_text, eps), name="eps"))


def ruled_out_figure(curves: pd.DataFrame, eps: Sequence[float], titles: Mapping[str, str]) -> Figure:
    """The shares in a table from `ruled_out_curves` against eps, by metric; those given are marked for Linf.

    Lines are means over runs, shades one sample standard deviation to each side.
    """
    networks = network_looks(curves["variant"].unique())
    looks = {variant: Look(look.colour) for variant, look in networks.items()}
    with drawn_in(CHART):
        figure, axes = panels(
            list(_METRIC_TITLES.values()),
            sharex=False,
            height=2.8,
            beside=1.4,
            xlabel="eps (pixels in [0, 1])",
            ylabel="Share of test images ruled out",
        )
        for ax, metric in zip(axes, _METRIC_TITLES, strict=True):
            lines(ax, curves[curves["metric"] == metric], "eps", "variant", looks, y="share")
            ax.set(xscale="log", ylim=(0, 1))
            for size in eps if metric == "linf" else ():
                ax.axvline(size, color="0.3", lw=0.9, ls="--")
        legend(figure, [look.handle(titles[variant]) for variant, look in looks.items()])
    return figure


class TradeoffParameters(SeveralSeeds):
    """The parameters of `notebooks/tradeoff.ipynb`."""

    eps: several(number(0, 1, "a distance in pixels of [0, 1]"), 8) = Field(
        (2 / 255, 4 / 255, 8 / 255, 16 / 255), title="sizes to mark"
    )


_EPS = 8 / 255


def _evidence(runs: Runs) -> pd.DataFrame:
    """One row per network whose predictions on the LFC at the paper's radii are stored.

    Its share of the images that `ruled_out` finds at Linf 8/255, at any of these radii.
    """
    predictions = stored_predictions(runs)
    images, labels = (part[: predicted_images(predictions)] for part in embedded("test"))
    distance = distances(to_float(images), PAPER_RADII)["linf"]
    rows = [
        (variant, seed, ruled_out(distance, changed_radius(answers, PAPER_RADII, labels), [_EPS]).item(), len(labels))
        for variant, ones in predictions.items()
        for seed, answers in ones.items()
        if all(answers.has("lfc", radius) for radius in PAPER_RADII)
    ]
    return pd.DataFrame(rows, columns=["variant", "seed", "value", "n"])


TRADEOFF = Chapter(
    name="tradeoff",
    question="Must an accurate network be fragile?",
    topic="trade-off",
    paper="section 3",
    figures={"tradeoff-ruled-out": "predictions"},
    recipes=fig2_recipes,
    parameters=TradeoffParameters,
    required=("vanilla", "batchnorm"),
    needs_weights=("vanilla", "batchnorm"),
    evidence=_evidence,
    cells=lambda shares: cells_of_shares(shares.assign(measure="ruled_out", measured="", sample="test")),
    measures="ruled_out",
)
