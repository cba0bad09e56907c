"""The trade-off between accuracy and robustness that the paper derives from the two components (section 3).

A network f is right at (x, y) if f(x) = y. It is right and robust there, for a metric d and a size eps, if f(x') = y
for every array x' with d(x, x') <= eps, in [0, 1] or not. x_l is the LFC of x at some radius.

Corollary 1: if f(x) != f(x_l), then f is not right and robust at (x, y) for any eps >= d(x, x_l), since x_l is one of
the x'. The chapter measures d(x, x_l), how often f(x) != f(x_l), and at how many images the corollary applies.
"""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from hfclib.data.cifar import embedded, to_float
from hfclib.evaluation import PAPER_RADII
from hfclib.frequency import split
from hfclib.paper.chapter import Chapter
from hfclib.paper.fig2 import FIG2, fig2_recipes, stored_predictions
from hfclib.paper.intervals import over_seeds
from hfclib.paper.parameters import OneSeed, number, several
from hfclib.paper.style import FIG2_TITLES, STYLE, network_looks
from hfclib.paper.tables import decimals
from hfclib.paper.verdicts import Claim
from hfclib.runs.collect import Runs
from hfclib.runs.predictions import Predictions

_METRIC_TITLES = {"l2": "L2 distance (pixels in [0, 1])", "linf": "Linf distance (pixels in [0, 1])"}


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
    found = {"l2": [], "linf": []}
    for radius in radii:
        difference = split(images, radius)[1].flatten(1)
        found["l2"].append(difference.norm(dim=1))
        found["linf"].append(difference.abs().amax(dim=1))
    return {metric: torch.stack(rows) for metric, rows in found.items()}


def changed_radius(predictions: Predictions, radii: Sequence[int], labels: Tensor | None = None) -> Tensor:
    """At which radii the predictions for an image and its LFC differ, raw, running statistics (the paper's A2).

    Args:
        predictions: of a network for N images.
        radii: DFT bins.
        labels: (N,) int64; with them, only images that are classified correctly count.
    Returns:
        (len(radii), N) bool.
    """
    found = torch.stack([predictions.on("lfc", radius) for radius in radii]) != predictions.on("x")
    return found if labels is None else found & (predictions.on("x") == labels)


def ruled_out(distance: Tensor, changed: Tensor, eps: Sequence[float]) -> Tensor:
    """The share of images at which Corollary 1 rules out being right and robust.

    Args:
        distance: (R, N) between an image and its LFC at each of R radii, in one metric.
        changed: (R, N) bool, from `changed_radius`.
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


def distance_table(found: Mapping[str, Tensor], radii: Sequence[int]) -> pd.DataFrame:
    """Quantiles of `distances`: one row per (metric, radius), columns min, q05, q25, q50, q75 and q95."""
    rows = []
    for metric, values in found.items():
        for radius, ones in zip(radii, values.double().numpy(), strict=True):
            quantiles = {f"q{share:02}": np.percentile(ones, share) for share in (5, 25, 50, 75, 95)}
            rows.append({"metric": metric, "radius": radius, "min": ones.min(), **quantiles})
    return pd.DataFrame(rows)


def changed_share(changed: Mapping[str, Tensor], radii: Sequence[int]) -> pd.DataFrame:
    """The share of images that `changed_radius` finds: one row per radius, one column per variant."""
    shares = {variant: one.float().mean(dim=1).tolist() for variant, one in changed.items()}
    return pd.DataFrame(shares, index=pd.Index(radii, name="radius"))


def ruled_out_curves(distance: Mapping[str, Tensor], changed: Mapping[str, Tensor], points: int = 80) -> pd.DataFrame:
    """`ruled_out` on a logarithmic grid of sizes.

    Args:
        distance: from `distances`.
        changed: from `changed_radius`, by variant.
        points: sizes per metric, from the smallest distance, but at least 1e-4, to the largest.
    Returns:
        One row per (metric, variant, eps): share, in [0, 1].
    """
    rows = []
    for metric, values in distance.items():
        sizes = np.geomspace(max(float(values.min()), 1e-4), float(values.max()), points).tolist()
        for variant, one in changed.items():
            shares = ruled_out(values, one, sizes).tolist()
            rows.append(pd.DataFrame({"metric": metric, "variant": variant, "eps": sizes, "share": shares}))
    return pd.concat(rows, ignore_index=True)


def _size_text(eps: float) -> str:
    return f"{255 * eps:.4g}/255"


def ruled_out_table(distance: Tensor, changed: Mapping[str, Tensor], eps: Sequence[float]) -> pd.DataFrame:
    """`ruled_out` as text with three decimals: one row per size, one column per network; `changed` is by variant."""
    shares = {FIG2_TITLES[variant]: ruled_out(distance, one, eps).tolist() for variant, one in changed.items()}
    return pd.DataFrame(shares, index=pd.Index(map(_size_text, eps), name="eps")).map(decimals)


def binding_radius(
    distance: Tensor, changed: Mapping[str, Tensor], radii: Sequence[int], eps: Sequence[float]
) -> pd.DataFrame:
    """At which radius the corollary rules out most images, for each size.

    Args:
        distance, eps: as in `ruled_out`.
        changed: from `changed_radius`, by variant.
        radii: the R radii, ascending.
    Returns:
        One row per size: the smallest radius at which any image is so near to its LFC, the share of images that are at
        the largest radius, and for each network the radius that rules out most images ("none" where there are none).
    """
    rows = []
    for one in eps:
        near = distance <= one
        reached = [radius for radius, any_near in zip(radii, near.any(dim=1).tolist(), strict=True) if any_near]
        row = {"eps": _size_text(one), "first radius with an image so near": str(reached[0]) if reached else "none"}
        row[f"share so near at r = {radii[-1]}"] = decimals(near[-1].float().mean().item())
        for variant, where in changed.items():
            most, place = (value.item() for value in (near & where).sum(dim=1).max(dim=0))
            best = f"{radii[place]} ({most} image{'s' * (most > 1)})" if most else "none"
            row[f"radius that rules out most: {FIG2_TITLES[variant]}"] = best
        rows.append(row)
    return pd.DataFrame(rows).set_index("eps")


def distances_figure(table: pd.DataFrame, eps: Sequence[float]) -> Figure:
    """The distances in a table from `distance_table` against the radius, by metric; eps are marked for Linf."""
    shades = (("q05", "q95", 0.2, "90 % of images"), ("q25", "q75", 0.35, "half of them"))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 3.9), layout="constrained")
        for ax, (metric, label) in zip(figure.subplots(1, 2, sharex=True), _METRIC_TITLES.items(), strict=True):
            rows = table[table["metric"] == metric].set_index("radius")
            for low, high, alpha, share in shades:
                ax.fill_between(rows.index, rows[low], rows[high], color="C0", alpha=alpha, lw=0, label=share)
            ax.plot(rows.index, rows["q50"], color="C0", marker="o", ms=3.5, label="median")
            ax.set(ylabel=label, xlabel="Radius (DFT bins)", yscale="log")
            ax.grid(alpha=0.3, lw=0.5, which="both")
            for one in eps if metric == "linf" else ():
                ax.axhline(one, color="0.3", lw=0.9, ls="--")
                ax.annotate(_size_text(one), (1, one), xytext=(2, 2), textcoords="offset points")
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def changed_figure(shares: pd.DataFrame) -> Figure:
    """The shares in a table from `changed_share` against the radius."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 3.8), layout="constrained")
        ax = figure.subplots()
        for variant, (colour, marker) in network_looks(list(shares)).items():
            ax.plot(shares.index, shares[variant], color=colour, marker=marker, ms=4, label=FIG2_TITLES[variant])
        ax.set(xlabel="Radius (DFT bins)", ylabel="Share with $f(x) \\ne f(x_l)$", ylim=(0, 1))
        ax.grid(alpha=0.3, lw=0.5)
        figure.legend(*ax.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def ruled_out_figure(curves: pd.DataFrame, eps: Sequence[float]) -> Figure:
    """The shares in a table from `ruled_out_curves` against eps, by metric; those given are marked for Linf."""
    beside = {"xytext": (2, 0), "textcoords": "offset points", "rotation": 90, "va": "top"}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 3.9), layout="constrained")
        for ax, (metric, label) in zip(figure.subplots(1, 2, sharey=True), _METRIC_TITLES.items(), strict=True):
            rows = curves[curves["metric"] == metric]
            for variant, (colour, _) in network_looks(list(rows["variant"].unique())).items():
                one = rows[rows["variant"] == variant]
                ax.plot(one["eps"], one["share"], color=colour, lw=1.8, label=FIG2_TITLES[variant])
            ax.set(xlabel=f"eps, {label}", xscale="log", ylim=(0, 1))
            ax.grid(alpha=0.3, lw=0.5)
            for one in eps if metric == "linf" else ():
                ax.axvline(one, color="0.3", lw=0.9, ls="--")
                ax.annotate(_size_text(one), (one, 0.98), **beside)
        figure.supylabel("Share of test images ruled out")
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


class TradeoffParameters(OneSeed):
    """The parameters of `notebooks/tradeoff.ipynb`."""

    eps: several(number(0, 1, "a distance in pixels of [0, 1]"), 8) = (2 / 255, 4 / 255, 8 / 255, 16 / 255)


_EPS = 8 / 255


def _evidence(runs: Runs) -> pd.DataFrame:
    """One row per network: the share of images that `ruled_out` finds at Linf 8/255, at any of the paper's radii."""
    images, labels = embedded("test")
    distance = distances(to_float(images), PAPER_RADII)["linf"]
    rows = [
        (variant, seed, ruled_out(distance, changed_radius(one, PAPER_RADII, labels), [_EPS]).item())
        for variant, ones in stored_predictions(runs).items()
        for seed, one in ones.items()
    ]
    return pd.DataFrame(rows, columns=["variant", "seed", "share"])


TRADEOFF = Chapter(
    name="tradeoff",
    recipes=fig2_recipes,
    parameters=TradeoffParameters,
    optional=FIG2.optional,
    claims=(
        Claim(
            id="tradeoff-corollary",
            figure="tradeoff",
            section="section 3, assumption A2 and Corollary 1",
            text="Some images that are classified correctly cannot be so robustly at an eps that is in use",
            version="vanilla; share of images, Linf 8/255, any of r = 4, 8, 12, 16",
            relation="exceeds",
            # Written when the share of one network was known.
            statistic=lambda found: over_seeds(found.query("variant == 'vanilla'")["share"]),
        ),
    ),
    evidence=_evidence,
)
