"""The figures of a report, of Matplotlib: accuracy by radius, the parts, pictures, and the card."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from hfclib.charts import BAND_COLOURS, MARKERS, STYLE, WIDTH, blank, legend
from hfclib.frequency import nyquist, split
from hfclib.reporting import answer
from hfclib.reporting.metric import READ, counted
from hfclib.reporting.stored import Report

INK = "#010203"  # of lines and letters, replaced by the colour of the page's text
_INKED = "text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"
PAGE_STYLE = STYLE | dict.fromkeys(_INKED, INK)
PAGE_STYLE |= {"svg.fonttype": "none", "font.family": "sans-serif", "axes.facecolor": "none"}
BAND_WORDS = {"lfc": "low frequencies alone", "hfc": "high frequencies alone"}
STATISTICS_WORDS = {"running": "", "batch": ", test-batch statistics", "matched": ", matched moments"}


def draw_bars(axes: Axes, rows: Sequence[Mapping], x: Sequence[float], **look) -> None:
    """A curve of the rows' shares or accuracies, with their intervals."""
    y = np.array([row["share"] if "share" in row else row["accuracy"] for row in rows])
    low, high = (np.array([row[name] for row in rows], float) for name in ("low", "high"))  # NaN where not measured
    axes.errorbar(x, y, [y - low, high - y], capsize=3, **look)


def shares_on_top(axes: Axes, side: int) -> None:
    """A second axis above that of radii in DFT bins."""
    half = nyquist(1, side)

    def shares(bins: Any) -> Any:
        return bins / half

    def bins_of(shares: Any) -> Any:
        return shares * half

    above = axes.secondary_xaxis("top", functions=(shares, bins_of))
    above.set_xlabel("share of Nyquist")


def plot(table: pd.DataFrame, others: Mapping[str, pd.DataFrame] | None = None, *, side: int | None = None) -> Figure:
    """Accuracy by radius: one curve with 95 % Wilson intervals per band, feed and kind of statistics.

    Args:
        table: from `band_accuracy`, `BandAccuracy.compute` or `Report.table`.
        others: such tables of other networks, by the names that the legend gives them. Their LFC, and their HFC with
            the mean colour, are drawn behind, dashed, with running averages.
        side: of the images, in pixels (the shorter one): a second axis then shows the radii as shares of Nyquist.
    Returns:
        A figure of Matplotlib, as for `savefig`. A grey line is the accuracy on whole images, if the table has it.
    """
    table = table.sort_values("radius", kind="stable")
    bands, whole = table[table["band"] != "x"], table[table["band"] == "x"]
    read = "bn_stats == 'running' and (band == 'lfc' or band == 'hfc' and feed == 'mean')"
    behind = {name: other.query(read).sort_values("radius") for name, other in (others or {}).items()}
    figure = blank(WIDTH, 5)
    axes = figure.subplots()
    for accuracy in whole["accuracy"][:1]:
        axes.axhline(accuracy, color="grey", lw=1, label="whole images")
    for (band, feed, statistics), rows in bands.groupby(["band", "feed", "bn_stats"], sort=False):
        plain = (band, feed) == ("hfc", "raw")
        look = {"ls": ":" if plain else "-." if feed == "max" else "-", "alpha": 1 if statistics == "running" else 0.45}
        fed = ", as it is" if plain else ", by its maximum" if feed == "max" else ""
        label = f"{band.upper()}{fed}{STATISTICS_WORDS.get(statistics, statistics)}"
        draw_bars(axes, _counted(rows), list(rows["radius"]), label=label, color=BAND_COLOURS[band], marker="o", **look)
    for marker, (name, other) in zip(cycle(MARKERS[1:]), behind.items(), strict=False):
        for band, rows in other.groupby("band", sort=False):
            look = {"color": BAND_COLOURS[band], "ls": "--", "alpha": 0.7, "marker": marker, "zorder": 1}
            draw_bars(axes, _counted(rows), list(rows["radius"]), label=f"{band.upper()}, {name}", **look)
    axes.set(xlabel="radius (DFT bins)", ylabel="accuracy", ylim=(0, 1))
    if side:
        shares_on_top(axes, side)
    legend(figure, fontsize=10)
    return figure


def _counted(table: pd.DataFrame) -> list[dict]:
    return [counted(round(row.accuracy * row.images), row.images) for row in table.itertuples()]


def draw_curves(axes: Axes, content: dict) -> None:
    """The two curves that answer what a network reads, named where they end, with their crossing marked."""
    whole, crossed = answer.whole_row(content), answer.crossing(content)
    for band in READ:
        rows = answer.band_rows(content, band)
        x = [row["radius"] for row in rows]
        draw_bars(axes, rows, x, label=BAND_WORDS[band], color=BAND_COLOURS[band], marker="o", lw=2)
    axes.axhline(whole["accuracy"], color="grey", lw=1, label="whole images")
    if crossed.radius is not None and crossed.accuracy is not None:
        axes.axvline(crossed.radius, color="grey", ls=":", lw=1)
        axes.plot([crossed.radius], [crossed.accuracy], "o", mfc="none", mec="grey", ms=14)
    named = "agreement" if answer.is_unlabelled(content) else "accuracy"
    axes.set(xlabel="radius of the cut (DFT bins)", ylabel=named, ylim=(0, 1.02))
    shares_on_top(axes, answer.side_of(content))


def first_figure(content: dict) -> Figure:
    """The figure on the first screen, see `draw_curves`."""
    figure = blank(WIDTH, 3.8)
    draw_curves(figure.subplots(), content)
    legend(figure, fontsize=10)
    return figure


def heat_map_figure(rows: list[dict]) -> Figure:
    """The error rate at each frequency, from -Nyquist to Nyquist."""
    half = pd.DataFrame(rows)[["row", "column", "error"]]
    whole = pd.concat([half, half.assign(row=-half["row"], column=-half["column"])])
    values = whole.pivot_table("error", "row", "column")
    figure = blank(5.2, 4.2)
    axes = figure.subplots()
    # Edges of cells by hand: pcolormesh gives a single row or column, of an image one pixel high or wide, no extent.
    places = [list(at) for at in (values.columns, values.index)]
    ends = [[2 * at[0] - at[1], *at, 2 * at[-1] - at[-2]] if len(at) > 1 else [-1, 0, 1] for at in places]
    x, y = ([(a + b) / 2 for a, b in pairwise(at)] for at in ends)
    shown = axes.pcolormesh(x, y, values, cmap="magma", vmin=0, vmax=1, rasterized=True)
    if len(places[0]) > 1 and len(places[1]) > 1:  # no cell goes beyond Nyquist
        axes.set(xlim=(places[0][0], places[0][-1]), ylim=(places[1][0], places[1][-1]))
    axes.set(xlabel="cycles per image, across", ylabel="cycles per image, down", aspect="equal")
    figure.colorbar(shown, label="error rate")
    return figure


AXES = {  # labels of both axes, and what stands at a row
    "noise": (
        "band of the noise (DFT bins, share of Nyquist)",
        "accuracy",
        "{from_bins:.3g} to {to_bins:.3g}\n({share})",
    ),
    "phase": ("class that the predictions follow", "share", "{follows}"),
}


def points_figure(part: str, rows: list[dict], others: Mapping[str, list[dict]], side: int) -> Figure | None:
    """Shares with intervals, one place per row of the part; None without rows."""
    if not rows:
        return None
    xlabel, ylabel, tick = AXES[part]

    def named(row: dict) -> str:
        ends = [f"{row[f'{end}_bins'] / nyquist(1, side):.0%}" for end in ("from", "to") if f"{end}_bins" in row]
        return tick.format_map(row | {"share": " to ".join(ends)})

    figure = blank(WIDTH, 3.2)
    axes, ticks = figure.subplots(), [named(row) for row in rows]
    draw_bars(axes, rows, range(len(ticks)), color=BAND_COLOURS["hfc"], marker="o", ls="", label="this network")
    for number, (marker, (name, theirs)) in enumerate(zip(cycle(MARKERS[1:]), others.items(), strict=False), 1):
        if shared := [row for row in theirs if named(row) in ticks]:
            x = [ticks.index(named(row)) + 0.12 * number for row in shared]
            draw_bars(axes, shared, x, label=name, color="grey", marker=marker, ls="", zorder=1)
    if others:
        legend(figure, columns=1, fontsize=10)
    axes.set_xticks(range(len(ticks)), ticks, fontsize=10)
    axes.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, 1))
    return figure


def energy_figure(rows: list[dict], others: Mapping[str, list[dict]], side: int) -> Figure | None:
    """The share of an attack's energy beyond each radius; None without rows."""
    if not rows:
        return None
    figure = blank(WIDTH, 3.8)
    axes, x = figure.subplots(), [row["radius"] for row in rows]
    draw_bars(axes, rows, x, color=BAND_COLOURS["hfc"], marker="o", label="PGD")
    axes.plot(x, [row["bins"] for row in rows], "--", color="grey", label="white noise")
    for marker, (name, theirs) in zip(cycle(MARKERS[1:]), others.items(), strict=False):
        if theirs:
            x = [row["radius"] for row in theirs]
            draw_bars(axes, theirs, x, color="grey", marker=marker, ls="-.", label=name, zorder=1)
    axes.set(xlabel="radius (DFT bins)", ylabel="share beyond", ylim=(0, 1))
    shares_on_top(axes, side)
    legend(figure, fontsize=10)
    return figure


def misaligned_figure(rows: list[dict], images: Tensor, side: int) -> Figure | None:
    """Misaligned images beside their two parts, at the radius that has most; None if there is none."""
    chosen = max(rows, key=lambda row: row["correct"], default=None)
    if chosen is None or not chosen["first"]:
        return None
    shown, cut = images[chosen["first"][:4]].cpu(), answer.cut_words(chosen["radius"], side).replace(" (", "\n(")
    columns = [shown, *split(shown, chosen["radius"])]
    figure = blank(WIDTH, 1.9 * len(shown))
    for place, axes in enumerate(figure.subplots(len(shown), 3, squeeze=False).flat):
        picture = columns[place % 3][place // 3][:3].float()
        picture = picture - picture.min() if place % 3 == 2 else picture
        picture = picture / picture.max().clamp_min(1e-6) if place % 3 == 2 else picture.clamp(0, 1)
        axes.imshow((picture.permute(1, 2, 0) if len(picture) == 3 else picture[0]).numpy(), cmap="gray")
        axes.set(xticks=[], yticks=[])
        if place < 3:
            axes.set_title(("image", f"LFC, {cut}", "HFC, stretched")[place], fontsize=11)
    return figure


def card(report: Report) -> Figure:
    """A picture of 1200 x 630 pixels: name, accuracy on whole images, the curves, and what the network reads."""
    content = report.content
    name = content["key"]["settings"]["name"]
    figure = Figure(figsize=(12, 6.3), dpi=100, facecolor="white")
    figure.text(0.04, 0.88, textwrap.shorten(name, 70), fontsize=28 if len(name) < 50 else 18, weight="bold")
    if not answer.is_unlabelled(content):
        figure.text(0.04, 0.78, f"accuracy {answer.whole_row(content)['accuracy']:.1%}", fontsize=22)
    figure.text(0.04, 0.68, textwrap.fill(answer.reads(content), 40), fontsize=16, va="top", linespacing=1.5)
    axes = figure.add_axes((0.56, 0.13, 0.4, 0.66))
    draw_curves(axes, content)
    axes.legend(fontsize=12, frameon=False)
    return figure


def thumbnails(images: Tensor) -> Iterator[np.ndarray]:
    """Images (N, C, H, W) in [0, 1] as uint8 arrays (h, w, 3) whose longer side is at most about 96 pixels."""
    step = max(1, -(-max(images.shape[-2:]) // 96))
    for image in images[..., ::step, ::step].float().cpu():
        colours = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
        yield (colours.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
