"""The trade-off between accuracy and robustness that the paper derives from the two components (section 3).

Definitions. A network f is right at (x, y) if f(x) = y. It is right and robust there, for a metric d and a size eps, if
f(x') = y for every array x' with d(x, x') <= eps, in [0, 1] or not. x_l is the LFC of x at some radius.

Corollary 1. If f(x) != f(x_l), then f is not right and robust at (x, y) for any eps >= d(x, x_l). For x_l is itself one
of the x': were f right and robust, both f(x) and f(x_l) would equal y.
"""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from hfclib.frequency import split
from hfclib.paper.chapter import Chapter
from hfclib.paper.fig2 import FIG2, fig2_recipes
from hfclib.paper.parameters import OneSeed, number, several
from hfclib.paper.style import FIG2_TITLES, STYLE, network_looks
from hfclib.paper.tables import decimals
from hfclib.runs.predictions import Predictions

METRICS = ("l2", "linf")


def distances(images: Tensor, radii: Sequence[float]) -> dict[str, Tensor]:
    """How far each image is from its LFC.

    Args:
        images: (N, C, H, W) float in [0, 1].
        radii: DFT bins.
    Returns:
        By metric, "l2" and "linf": (len(radii), N), in units of pixels in [0, 1]. An LFC may leave [0, 1]; it is not
        clipped, since the corollary speaks of x_l itself.
    Raises:
        TypeError, ValueError: as `split`.
    """
    found: dict[str, list[Tensor]] = {metric: [] for metric in METRICS}
    for radius in radii:
        difference = split(images, radius)[1].flatten(1)
        found["l2"].append(difference.norm(dim=1))
        found["linf"].append(difference.abs().amax(dim=1))
    return {metric: torch.stack(rows) for metric, rows in found.items()}


def ruled_out(distance: Tensor, changed: Tensor, eps: Sequence[float]) -> Tensor:
    """The share of images at which Corollary 1 rules out being right and robust.

    Args:
        distance: (R, N) between an image and its LFC at each of R radii, in one metric.
        changed: (R, N) bool, f(x) != f(x_l); or that only where f(x) = y, since a network that is wrong at x is not
            right and robust there in any case.
        eps: sizes, 0 or more, in the units of `distance`.
    Returns:
        (len(eps),) in [0, 1]: an image counts at eps if at any radius its answer changes and the distance is <= eps.
    Raises:
        ValueError: shapes differ, or an eps is negative or no number.
    """
    if distance.shape != changed.shape or distance.ndim != 2:
        raise ValueError(f"expected (R, N) twice, got {tuple(distance.shape)} and {tuple(changed.shape)}")
    if not all(one >= 0 for one in eps):
        raise ValueError(f"expected every eps to be at least 0, got {list(eps)}")
    smallest = torch.where(changed, distance, torch.inf).amin(dim=0)
    return torch.stack([(smallest <= one).float().mean() for one in eps])


def distance_table(found: Mapping[str, Tensor], radii: Sequence[int]) -> pd.DataFrame:
    """Quantiles of `distances`: a row a (metric, radius), columns q05, q25, q50, q75 and q95, and the smallest, min."""
    rows = []
    for metric, values in found.items():
        for radius, ones in zip(radii, values.double().numpy(), strict=True):
            quantiles = {f"q{100 * share:02.0f}": np.quantile(ones, share) for share in (0.05, 0.25, 0.5, 0.75, 0.95)}
            rows.append({"metric": metric, "radius": radius, "min": ones.min(), **quantiles})
    return pd.DataFrame(rows)


def changed_radius(answers: Predictions, radii: Sequence[int], labels: Tensor | None = None) -> Tensor:
    """Where the answer to an image and to its LFC differ, raw, running statistics: the paper's assumption A2.

    Args:
        answers: of a network to N images.
        radii: DFT bins.
        labels: (N,) int64; with them, only images that the network gets right are looked at.
    Returns:
        (len(radii), N) bool.
    """
    found = torch.stack([answers.on("lfc", radius) for radius in radii]) != answers.on("x")
    return found if labels is None else found & (answers.on("x") == labels)


def changed_share(by_panel: Mapping[str, Tensor], radii: Sequence[int]) -> pd.DataFrame:
    """The share of images with another answer to the LFC: a row a radius, a column a variant, in [0, 1].

    Args:
        by_panel: `changed` of each variant.
        radii: its radii.
    """
    shares = {variant: one.float().mean(dim=1).tolist() for variant, one in by_panel.items()}
    return pd.DataFrame(shares, index=pd.Index(radii, name="radius"))


def ruled_out_curves(distance: Mapping[str, Tensor], by_panel: Mapping[str, Tensor], points: int = 80) -> pd.DataFrame:
    """`ruled_out` on a logarithmic grid of sizes.

    Args:
        distance: from `distances`.
        by_panel: `changed` of each variant.
        points: sizes a metric, from the smallest distance, but at least 1e-4, to the largest: an image may be its own
            LFC, and the grid is logarithmic.
    Returns:
        A row a (metric, variant, eps): share, in [0, 1].
    """
    rows = []
    for metric, values in distance.items():
        sizes = np.geomspace(max(float(values.min()), 1e-4), float(values.max()), points).tolist()
        for variant, one in by_panel.items():
            shares = ruled_out(values, one, sizes).tolist()
            rows.append(pd.DataFrame({"metric": metric, "variant": variant, "eps": sizes, "share": shares}))
    return pd.concat(rows, ignore_index=True)


def _size_text(one: float) -> str:
    return f"{255 * one:.4g}/255"


def ruled_out_table(distance: Tensor, by_panel: Mapping[str, Tensor], eps: Sequence[float]) -> pd.DataFrame:
    """The share of images ruled out in one metric: a row a size, a column a network, three decimals.

    Args:
        distance: (R, N), in pixels of [0, 1].
        by_panel: `changed` of each variant.
        eps: sizes, in the units of `distance`.
    """
    columns = {
        FIG2_TITLES[variant]: [decimals(share) for share in ruled_out(distance, one, eps).tolist()]
        for variant, one in by_panel.items()
    }
    return pd.DataFrame(columns, index=pd.Index(map(_size_text, eps), name="eps"))


def binding_radius(
    distance: Tensor, by_panel: Mapping[str, Tensor], radii: Sequence[int], eps: Sequence[float]
) -> pd.DataFrame:
    """At which radius the corollary bites, for each size.

    Args:
        distance: (R, N), in pixels of [0, 1].
        by_panel: `changed` of each variant.
        radii: the R radii, ascending.
        eps: sizes, in the units of `distance`.
    Returns:
        A row a size: the smallest radius at which any image is so near to its LFC, the share of images that are at the
        largest radius, and for each network the radius with most ruled-out images ("none" where there are none).
    """
    rows = []
    for one in eps:
        near = distance <= one
        reached = [radius for radius, any_near in zip(radii, near.any(dim=1).tolist(), strict=True) if any_near]
        row = {
            "eps": _size_text(one),
            "first radius with an image so near": str(reached[0]) if reached else "none",
            f"share so near at r = {radii[-1]}": decimals(near[-1].float().mean().item()),
        }
        for variant, where in by_panel.items():
            hits = (near & where).sum(dim=1)
            most = int(hits.max())
            best = f"{radii[int(hits.argmax())]} ({most} image{'s' * (most > 1)})" if most else "none"
            row[f"radius that rules out most: {FIG2_TITLES[variant]}"] = best
        rows.append(row)
    return pd.DataFrame(rows).set_index("eps")


_METRIC_TITLES = {"l2": "L2 distance (pixels in [0, 1])", "linf": "Linf distance (pixels in [0, 1])"}


def distances_figure(table: pd.DataFrame, eps: Sequence[float]) -> Figure:
    """How far images are from their LFC, against the radius: L2 on the left, Linf on the right.

    Args:
        table: from `distance_table`.
        eps: sizes to mark in the variant of Linf, pixels in [0, 1].
    Returns:
        A Figure; the line is the median over images, the darker shade holds half of them and the lighter 90 %.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 3.6), layout="constrained")
        for ax, (metric, label) in zip(figure.subplots(1, 2, sharex=True), _METRIC_TITLES.items(), strict=True):
            rows = table[table["metric"] == metric]
            ax.fill_between(
                rows["radius"], rows["q05"], rows["q95"], color="C0", alpha=0.2, lw=0, label="90 % of images"
            )
            ax.fill_between(
                rows["radius"], rows["q25"], rows["q75"], color="C0", alpha=0.35, lw=0, label="half of them"
            )
            ax.plot(rows["radius"], rows["q50"], color="C0", marker="o", ms=3.5, label="median")
            ax.set(ylabel=label, xlabel="Radius (DFT bins)", yscale="log")
            ax.grid(alpha=0.3, lw=0.5, which="both")
            if metric == "linf":
                for one in eps:
                    ax.axhline(one, color="0.3", lw=0.9, ls="--")
                    ax.annotate(f"{255 * one:g}/255", (1, one), xytext=(2, 2), textcoords="offset points", fontsize=8)
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def changed_figure(shares: pd.DataFrame) -> Figure:
    """The share of test images whose answer changes when only the LFC is left (the paper's A2 samples).

    Args:
        shares: from `changed_share`.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.6, 3.3), layout="constrained")
        ax = figure.subplots()
        for variant, (colour, marker) in network_looks(list(shares)).items():
            ax.plot(shares.index, shares[variant], color=colour, marker=marker, ms=4, label=FIG2_TITLES[variant])
        ax.set(xlabel="Radius (DFT bins)", ylabel="Share of test images with $f(x) \\ne f(x_l)$", ylim=(0, 1))
        ax.grid(alpha=0.3, lw=0.5)
        figure.legend(*ax.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def ruled_out_figure(curves: pd.DataFrame, eps: Sequence[float]) -> Figure:
    """The share of test images that are right and, by Corollary 1, not robust, against eps.

    Args:
        curves: from `ruled_out_curves`.
        eps: sizes to mark in the variant of Linf, pixels in [0, 1].
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 3.6), layout="constrained")
        by_metric = curves.groupby("metric", sort=False)
        for ax, (metric, rows) in zip(figure.subplots(1, 2, sharey=True), by_metric, strict=True):
            for variant, (colour, _) in network_looks(list(rows["variant"].unique())).items():
                one = rows[rows["variant"] == variant]
                ax.plot(one["eps"], one["share"], color=colour, lw=1.8, label=FIG2_TITLES[variant])
            ax.set(xlabel="eps, " + _METRIC_TITLES[metric], xscale="log", ylim=(0, 1))
            ax.grid(alpha=0.3, lw=0.5)
            if metric == "linf":
                for one in eps:
                    ax.axvline(one, color="0.3", lw=0.9, ls="--")
                    ax.annotate(
                        f"{255 * one:g}/255",
                        (one, 0.98),
                        xytext=(2, 0),
                        textcoords="offset points",
                        rotation=90,
                        va="top",
                        fontsize=8,
                    )
        figure.supylabel("Share of test images ruled out")
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


class TradeoffParameters(OneSeed):
    """The parameters of `notebooks/tradeoff.ipynb`."""

    eps: several(number(0, 1, "a distance in pixels of [0, 1]"), 8) = (2 / 255, 4 / 255, 8 / 255, 16 / 255)


TRADEOFF = Chapter(name="tradeoff", recipes=fig2_recipes, parameters=TradeoffParameters, optional=FIG2.optional)
