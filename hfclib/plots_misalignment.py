"""Figures of the chapters on misaligned images and on the trade-off: tables in, a matplotlib Figure out."""

from collections.abc import Sequence

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from hfclib import published
from hfclib.evaluation import BN_STATS
from hfclib.feeds import FEEDS
from hfclib.plots import STYLE
from hfclib.tables import FIG2_TITLES
from hfclib.tables_misalignment import of_one_seed

_FEED_TITLES = {"raw": "fed as it is", "max": "divided by its maximum", "mean": "mean colour added to HFC"}
_STATS_TITLES = {"running": "running averages", "batch": "statistics of the test batch"}
_METRICS = {"l2": "L2 distance (pixels in [0, 1])", "linf": "Linf distance (pixels in [0, 1])"}
_MARKERS = "osD^v"


def _looks(panels: Sequence[str]) -> dict[str, tuple]:
    """(colour, marker) by panel, the same in every figure of these chapters."""
    colours = dict(zip(FIG2_TITLES, sns.color_palette("colorblind", len(FIG2_TITLES)), strict=True))
    markers = dict(zip(FIG2_TITLES, _MARKERS, strict=False))
    return {panel: (colours[panel], markers[panel]) for panel in panels}


def misaligned_counts(counts: pd.DataFrame) -> Figure:
    """How many test images are misaligned against the radius: a row a kind of statistics, a column a feed.

    Args:
        counts: `misalignment.counts` of the Fourier split, of one seed.
    Returns:
        A Figure; a colour and marker a network, counts on an axis that is logarithmic from 10 on. The dashed line is
        the paper's "~600" of 10,000 images.
    Raises:
        ValueError: several seeds.
    """
    panels = list(dict.fromkeys(of_one_seed(counts)["panel"]))
    images = int(counts["images"].max())
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 5), layout="constrained")
        axes = figure.subplots(2, 3, sharex=True, sharey=True)
        for line, bn_stats in zip(axes, BN_STATS, strict=True):
            for ax, feed in zip(line, FEEDS, strict=True):
                for panel, (colour, marker) in _looks(panels).items():
                    rows = counts[(counts["panel"] == panel) & (counts["feed"] == feed)]
                    if bn_stats in set(rows["bn_stats"]) or set(rows["bn_stats"]) == {"running"}:
                        kind = bn_stats if bn_stats in set(rows["bn_stats"]) else "running"
                        rows = rows[rows["bn_stats"] == kind]
                        ax.plot(rows["radius"], rows["misaligned"], color=colour, marker=marker, ms=3.5, lw=1.2,
                                label=FIG2_TITLES[panel])  # fmt: skip
                ax.axhline(
                    published.MISALIGNED * images, color="0.3", lw=1, ls="--", label="the paper's “~600” (r = 12)"
                )
                ax.axvline(12, color="0.6", lw=0.8, ls=":")
                ax.set_title(f"{_FEED_TITLES[feed]};\n{_STATS_TITLES[bn_stats]}", fontsize=9)
                ax.set_yscale("symlog", linthresh=10)
                ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
                ax.grid(alpha=0.3, lw=0.5)
        axes[0, 0].set_ylim(bottom=0)  # last: it freezes the upper end, which all panels share
        for ax in axes[1]:
            ax.set_xlabel("Radius (DFT bins)")
        figure.supylabel(f"Misaligned images of {images:,}")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def misaligned_by_class(table: pd.DataFrame, radius: int) -> Figure:
    """On which classes the misaligned images fall: bars a class, a colour a network.

    Args:
        table: from `misalignment.by_class`.
        radius: for the axis title, DFT bins.
    """
    looks = _looks(list(table.columns))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 3.2), layout="constrained")
        ax = figure.subplots()
        width = 0.8 / len(looks)
        for number, (panel, (colour, _)) in enumerate(looks.items()):
            places = [place + (number - (len(looks) - 1) / 2) * width for place in range(len(table))]
            ax.bar(places, table[panel], width, color=colour, label=FIG2_TITLES[panel])
        ax.set_xticks(range(len(table)), table.index, rotation=30, ha="right")
        ax.set(xlabel="True class", ylabel=f"Misaligned images at r = {radius}")
        ax.grid(alpha=0.3, lw=0.5, axis="y")
        figure.legend(*ax.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def distances(table: pd.DataFrame, eps: Sequence[float]) -> Figure:
    """How far images are from their LFC, against the radius: L2 on the left, Linf on the right.

    Args:
        table: from `tradeoff.distance_table`.
        eps: sizes to mark in the panel of Linf, pixels in [0, 1].
    Returns:
        A Figure; the line is the median over images, the darker shade holds half of them and the lighter 90 %.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 3.6), layout="constrained")
        for ax, (metric, label) in zip(figure.subplots(1, 2, sharex=True), _METRICS.items(), strict=True):
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


def changed_by_radius(shares: pd.DataFrame) -> Figure:
    """The share of test images whose answer changes when only the LFC is left (the paper's A2 samples).

    Args:
        shares: from `tradeoff.changed_share`.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.6, 3.3), layout="constrained")
        ax = figure.subplots()
        for panel, (colour, marker) in _looks(list(shares)).items():
            ax.plot(shares.index, shares[panel], color=colour, marker=marker, ms=4, label=FIG2_TITLES[panel])
        ax.set(xlabel="Radius (DFT bins)", ylabel="Share of test images with $f(x) \\ne f(x_l)$", ylim=(0, 1))
        ax.grid(alpha=0.3, lw=0.5)
        figure.legend(*ax.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def ruled_out(curves: pd.DataFrame, eps: Sequence[float]) -> Figure:
    """The share of test images that are right and, by Corollary 1, not robust, against eps.

    Args:
        curves: from `tradeoff.curves`.
        eps: sizes to mark in the panel of Linf, pixels in [0, 1].
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 3.6), layout="constrained")
        by_metric = curves.groupby("metric", sort=False)
        for ax, (metric, rows) in zip(figure.subplots(1, 2, sharey=True), by_metric, strict=True):
            for panel, (colour, _) in _looks(list(rows["panel"].unique())).items():
                one = rows[rows["panel"] == panel]
                ax.plot(one["eps"], one["share"], color=colour, lw=1.8, label=FIG2_TITLES[panel])
            ax.set(xlabel="eps, " + _METRICS[metric], xscale="log", ylim=(0, 1))
            ax.grid(alpha=0.3, lw=0.5)
            if metric == "linf":
                for one in eps:
                    ax.axvline(one, color="0.3", lw=0.9, ls="--")
                    ax.annotate(f"{255 * one:g}/255", (one, 0.98), xytext=(2, 0), textcoords="offset points",
                                rotation=90, va="top", fontsize=8)  # fmt: skip
        figure.supylabel("Share of test images ruled out")
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure
