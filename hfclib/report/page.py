"""The figure of a table; the page of a report, one HTML file with SVG in the reader's colours; and its card."""

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from itertools import cycle, pairwise
from operator import itemgetter

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from hfclib.frequency import nyquist, split
from hfclib.report.metric import chance_p_value, counted

LEVEL = 0.05  # of the test whether a network is better than chance
INK = "#010203"  # of lines and letters, replaced by the colour of the page's text
LOOK = dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK)
LOOK |= {"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 12, "axes.facecolor": "none"}
LOOK |= {"legend.frameon": False, "svg.hashsalt": "hfclib"}
BAND_COLOURS = {"lfc": "#4477AA", "hfc": "#EE6677"}
MARKERS = "sDv^P*X"  # of other networks
BAND_WORDS = {"lfc": "low frequencies (LFC)", "hfc": "high ones (HFC), mean colour"}
READ = {"lfc": "raw", "hfc": "mean"}  # the feed of each band by which a network is summed up, with running statistics
CSS = """:root{color-scheme:light dark;--ground:#fff;--ink:#1b1b1b;--line:#ccc}
@media (prefers-color-scheme:dark){:root{--ground:#16181c;--ink:#e6e6e6;--line:#444}}
body{background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;
padding:0 1rem}figure{margin:0;overflow-x:auto}svg{display:block}
table{border-collapse:collapse;font-size:14px;display:block;overflow-x:auto}
td,th{border-bottom:1px solid var(--line);padding:.2rem .6rem;text-align:right}code{overflow-wrap:anywhere}"""
TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{title}</title><style>{css}</style></head><body><main><h1>{title}</h1><p id="summary">{summary}</p>
{body}<h2>Settings</h2><table>{settings}</table></main></body></html>
"""


def summary(report) -> str:
    """One paragraph in plain words on what the network reads; nothing of it if the network is not above chance."""
    rows = report.content["parts"]["accuracy"]
    chance = 1 / report.content["key"]["settings"]["classes"]
    said = [f"On whole images the network is right for {_share(rows[0])}; guessing gives {chance:.1%}."]
    said.append(_reads(report))
    if _is_guessing(report):
        return " ".join(said)
    energy, heat = report.content["parts"]["energy"], report.content["parts"]["heat_map"]
    worst = max(heat, key=lambda row: row["error"])
    place = f"({worst['row']}, {worst['column']}) cycles per image"
    said.append(f"Noise along one frequency harms most at {place}: the error is then {1 - worst['accuracy']:.1%}.")
    text = "Of a PGD perturbation's energy, {:.0%} lies at or beyond {}; white noise would have {:.0%} there."
    for row in energy[len(energy) // 2 :][:1]:
        said.append(text.format(row["share"], _cut(row["radius"], _side(report.content)), row["bins"]))
    follows = {row["follows"]: _share(row) for row in report.content["parts"]["phase"]}
    text = "Given the phases of one image and the amplitudes of one of another class, it follows the phases for"
    said += [f"{text} {follows['phase']}, the amplitudes for {follows['amplitude']}."] if follows else []
    return " ".join(said)


def _chance(report) -> float:
    """The p-value of the accuracy on whole images against guessing, see `chance_p_value`."""
    whole = report.content["parts"]["accuracy"][0]
    return chance_p_value(whole["correct"], whole["images"], report.content["key"]["settings"]["classes"])


def _is_guessing(report) -> bool:
    return _chance(report) > LEVEL


def _reads(report) -> str:
    """The sentence that compares the LFC with the HFC at the middle radius, or says that the network guesses."""
    if _is_guessing(report):
        test = f"one-sided binomial test, p = {_chance(report):.2g}"
        return f"The network is not better than chance on whole images ({test}): nothing follows about what it reads."
    radii = report.content["key"]["settings"]["radii"]
    radius = radii[(len(radii) - 1) // 2]
    condition = itemgetter("band", "radius", "feed", "bn_stats")
    rows = {condition(row): row for row in report.content["parts"]["accuracy"]}
    low, high = (rows[band, radius, feed, "running"] for band, feed in READ.items())
    right = f"it is right for {_share(low)} by the low frequencies alone, and for {_share(high)} by"
    apart = low["low"] > high["high"] or high["low"] > low["high"]
    more = "low" if low["accuracy"] > high["accuracy"] else "high"
    reads = f"more from the {more} ones" if apart else "about as much from either"
    cut = _cut(radius, _side(report.content))
    return f"Cut at {cut}, {right} the high ones with the mean colour: it reads {reads}."


def _colour_words(content: dict) -> str:
    """Which mean colour the HFC was fed with, and where it is from, which early reports do not say."""
    shown = ", ".join(f"{value:.3f}" for value in content["key"]["settings"]["colour"])
    images = content["parts"]["accuracy"][0]["images"]
    origin = {True: "was given", False: f"is that of all {images:,} images", None: "is in the settings"}
    return f" The mean colour ({shown}) {origin[content.get('colour_given')]}."


def _side(content: dict) -> int:
    """The shorter side of a report's images in pixels."""
    return min(content["key"]["settings"]["size"][1:])


def _cut(radius: float, side: int) -> str:
    """A radius in words: in DFT bins, with its share of the Nyquist frequency of images of a side."""
    return f"radius {radius:g} ({radius / nyquist(1, side):.0%} of Nyquist)"


def _share(row: dict) -> str:
    return f"{row['accuracy']:.1%} (95 % interval {row['low']:.1%} to {row['high']:.1%}, n = {row['images']:,})"


def html(report, images: Tensor, others: Sequence = ()) -> str:
    """The page of a finished report.

    Args:
        images: (N, C, H, W), the first ones of the report's data, from which the gallery is drawn. The page of a
            network that is not better than chance has the accuracy by band alone.
        others: finished reports, whose curves are drawn behind; noise and attack where their settings are the same.
    """
    key, found = report.content["key"], report.content["parts"]
    settings, named = key["settings"], {}
    for other in others:
        name = other.content["key"]["settings"]["name"]
        named[f"{name} ({len(named) + 1})" if name in named else name] = other.content
    parts = {name: other["parts"] for name, other in named.items()}
    noise = itemgetter("size", "norm", "eps", "steps")
    same = {name: parts[name] if noise(named[name]["key"]["settings"]) == noise(settings) else {} for name in named}
    colour = _colour_words(report.content)
    side, behind = _side(report.content), {name: pd.DataFrame(one["accuracy"]) for name, one in parts.items()}
    with mpl.rc_context(LOOK):
        sections = {"Accuracy by band": (plot(report.table(), behind, side=side), "accuracy")}
        if not _is_guessing(report):
            sections |= {
                "Fourier heat map": (_heat_map(found["heat_map"]), None),
                "Accuracy under noise of one band": (_points("noise", found, same, side), "noise"),
                "Where an attack puts its energy": (_energy(found["energy"], same, side), "energy"),
                "Misaligned images": (_gallery(found["misaligned"], images, side), "misaligned"),
                "Phase against amplitude": (_points("phase", found, parts, side), "phase"),
            }
        body = "".join(
            f"<h2>{title}</h2>{_svg(figure, title)}<p>{NOTES[title]}{colour if part == 'accuracy' else ''}</p>"
            + (_shown(report.table(part), side) if part else "")
            for title, (figure, part) in sections.items()
        )
    lines = {**settings, "weights, SHA-256": key["weights_sha256"], "data, SHA-256": report.content["data_sha256"]}
    lines["hfclib"] = report.content["hfclib"]
    cells = "".join(
        f"<tr><th>{name}</th><td><code>{escape(str(value))}</code></td></tr>" for name, value in lines.items()
    )
    title = escape(f"What {settings['name']} reads, by frequency")
    text = escape(report.content["summary"])
    page = TEMPLATE.format(title=title, css=CSS, summary=text, body=body, settings=cells)
    return page.replace("<table", '<table tabindex="0"')  # wide ones scroll, by the keyboard too


def card(report) -> Figure:
    """A picture of 1200 x 630 pixels: name, test accuracy, the curves, and the sentence on what the network reads."""
    settings, rows = report.content["key"]["settings"], report.content["parts"]["accuracy"]
    name = settings["name"]
    figure = Figure(figsize=(12, 6.3), dpi=100, facecolor="white")
    figure.text(0.04, 0.88, textwrap.shorten(name, 70), fontsize=28 if len(name) < 50 else 18, weight="bold")
    figure.text(0.04, 0.78, f"test accuracy {rows[0]['accuracy']:.1%}", fontsize=22)
    figure.text(0.04, 0.68, textwrap.fill(_reads(report), 40), fontsize=16, va="top", linespacing=1.5)
    axes = figure.add_axes((0.56, 0.13, 0.4, 0.66))
    for band, feed in READ.items():
        some = [row for row in rows if (row["band"], row["feed"], row["bn_stats"]) == (band, feed, "running")]
        x = [row["radius"] for row in some]
        _bars(axes, some, x, label=BAND_WORDS[band], color=BAND_COLOURS[band], marker="o", lw=2.5)
    axes.axhline(rows[0]["accuracy"], color="grey", lw=1)
    axes.set_xlabel("radius of the cut (DFT bins)", fontsize=14)
    _shares_on_top(axes, _side(report.content))
    axes.set_ylabel("accuracy", fontsize=14)
    axes.set_ylim(0, 1)
    axes.tick_params(labelsize=12)
    axes.legend(fontsize=12, frameon=False)
    return figure


NOTES = {
    "Accuracy by band": """LFC: the frequencies below the radius, as they are. HFC: the others, as they are (dotted) or
with the mean colour added. Pale lines: BatchNorm with the statistics of the test batch, or moments matched to those of
the first images. Bars are 95 % Wilson intervals; the grey line is the accuracy on whole images.
Dashed: other networks by their LFC, and by their HFC with the mean colour.""",
    "Fourier heat map": """Error rate when noise of fixed L2 norm along one Fourier basis vector is added to the pixels,
before any normalisation. The centre is frequency zero. The numbers are in heat_map.csv.""",
    "Accuracy under noise of one band": "Gaussian noise of the same norm, in one band of frequencies.",
    "Where an attack puts its energy": """Mean share of the energy of a PGD perturbation (L2) at or beyond each radius;
the dashed line is what white noise has there.""",
    "Misaligned images": """Right as they are and by their HFC with the mean colour, wrong by their LFC. Columns: the
image, its LFC, its HFC, stretched for the eye. In the table accuracy is the share of such images.""",
    "Phase against amplitude": """Images with the phases of one image and the amplitudes of one of another class: the
share of predictions that are the class of the phases, that of the amplitudes, or neither.""",
}


def _svg(figure: Figure | None, title: str) -> str:
    if figure is None:
        return ""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)  # needless within HTML
    text = text.replace(INK, "currentColor").replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
    return f'<figure tabindex="0">{text}</figure>'


def _bars(axes, rows: list[dict], x: list[float], **look) -> None:
    y = np.array([row["share"] if "share" in row else row["accuracy"] for row in rows])
    low, high = (np.array([row[name] for row in rows], float) for name in ("low", "high"))  # NaN where not measured
    axes.errorbar(x, y, [y - low, high - y], capsize=3, **look)


def _shown(table: pd.DataFrame, side: int) -> str:
    """A part's table for the page: each radius in DFT bins, and beside it its share of Nyquist."""
    table = table.round(4)
    if "radius" in table:
        table.insert(table.columns.get_loc("radius") + 1, "of Nyquist", (table["radius"] / nyquist(1, side)).round(4))
    for name in table.columns[table.isna().any()]:
        table[name] = table[name].astype(object).where(table[name].notna(), "not measured")
    return table.to_html(index=False, border=0)


def _shares_on_top(axes, side: int) -> None:
    """A second axis above the one of radii in DFT bins."""
    half = nyquist(1, side)
    above = axes.secondary_xaxis("top", functions=(lambda bins: bins / half, lambda share: share * half))
    above.set_xlabel("share of Nyquist")


def plot(table: pd.DataFrame, others: Mapping[str, pd.DataFrame] | None = None, *, side: int | None = None) -> Figure:
    """Accuracy by radius: one curve with 95 % Wilson intervals per band, feed and kind of statistics.

    Args:
        table: from `band_accuracy`, `BandAccuracy.compute` or `Report.table`.
        others: such tables of other networks, by the names that the legend gives them. Their LFC, and their HFC with
            the mean colour, are drawn behind, dashed, with running statistics.
        side: of the images, in pixels (the shorter one): a second axis then shows the radii as shares of Nyquist.
    Returns:
        A figure of Matplotlib, as for `savefig`. A grey line is the accuracy on whole images, if the table has it.
    """
    table = table.sort_values("radius", kind="stable")
    bands, whole = table[table["band"] != "x"], table[table["band"] == "x"]
    read = "bn_stats == 'running' and (band == 'lfc' or band == 'hfc' and feed == 'mean')"
    behind = {name: other.query(read).sort_values("radius") for name, other in (others or {}).items()}
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for accuracy in whole["accuracy"][:1]:
        axes.axhline(accuracy, color="grey", lw=1)
    for (band, feed, statistics), some in bands.groupby(["band", "feed", "bn_stats"], sort=False):
        look = {"ls": ":" if (band, feed) == ("hfc", "raw") else "-", "alpha": 1 if statistics == "running" else 0.45}
        label = f"{band.upper()}, {feed}, {statistics}"
        _bars(axes, _counted(some), list(some["radius"]), label=label, color=BAND_COLOURS[band], marker="o", **look)
    for marker, (name, other) in zip(cycle(MARKERS), behind.items(), strict=False):
        for band, some in other.groupby("band", sort=False):
            look = {"color": BAND_COLOURS[band], "ls": "--", "alpha": 0.7, "marker": marker, "zorder": 1}
            _bars(axes, _counted(some), list(some["radius"]), label=f"{band.upper()}, {name}", **look)
    axes.set(xlabel="radius (DFT bins)", ylabel="accuracy", ylim=(0, 1))
    if side:
        _shares_on_top(axes, side)
    figure.legend(loc="outside right upper", fontsize=10)
    return figure


def _counted(table: pd.DataFrame) -> list[dict]:
    return [counted(round(row.accuracy * row.images), row.images) for row in table.itertuples()]


def _heat_map(rows: list[dict]) -> Figure:
    half = pd.DataFrame(rows)[["row", "column", "error"]]
    whole = pd.concat([half, half.assign(row=-half["row"], column=-half["column"])])
    values = whole.pivot_table("error", "row", "column")
    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    axes = figure.subplots()
    # Edges of cells by hand: pcolormesh gives a single row or column, of an image one pixel high or wide, no extent.
    places = [list(at) for at in (values.columns, values.index)]
    ends = [[2 * at[0] - at[1], *at, 2 * at[-1] - at[-2]] if len(at) > 1 else [-1, 0, 1] for at in places]
    x, y = ([(a + b) / 2 for a, b in pairwise(at)] for at in ends)
    shown = axes.pcolormesh(x, y, values, cmap="magma", vmin=0, vmax=1, rasterized=True)
    axes.set(xlabel="cycles per image, across", ylabel="cycles per image, down", aspect="equal")
    figure.colorbar(shown, label="error rate")
    return figure


def _points(part: str, found: dict, others: dict, side: int) -> Figure | None:
    """Shares with intervals, one place per row of the part."""
    if not found[part]:
        return None
    xlabel, ylabel, tick = AXES[part]

    def named(row: dict) -> str:
        ends = {name: row[f"{name}_bins"] / nyquist(1, side) for name in ("from", "to") if f"{name}_bins" in row}
        return tick.format_map(row | ends)

    figure = Figure(figsize=(8, 3), layout="constrained")
    axes, ticks = figure.subplots(), [named(row) for row in found[part]]
    _bars(axes, found[part], range(len(ticks)), color=BAND_COLOURS["hfc"], marker="o", ls="", label="this network")
    for number, (marker, (name, parts)) in enumerate(zip(cycle(MARKERS), others.items(), strict=False), 1):
        if rows := [row for row in parts.get(part, ()) if named(row) in ticks]:
            x = [ticks.index(named(row)) + 0.12 * number for row in rows]
            _bars(axes, rows, x, label=name, color="grey", marker=marker, ls="", zorder=1)
    if others:
        figure.legend(loc="outside right upper", fontsize=10)
    axes.set_xticks(range(len(ticks)), ticks)
    axes.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, 1))
    return figure


AXES = {  # labels of both axes, and what stands at a row
    "noise": (
        "band of the noise (DFT bins, and share of Nyquist)",
        "accuracy",
        "{from_bins:.3g} to {to_bins:.3g}\n({from:.0%} to {to:.0%})",
    ),
    "phase": ("class that the predictions follow", "share", "{follows}"),
}


def _energy(rows: list[dict], others: dict, side: int) -> Figure | None:
    if not rows:
        return None
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes, x = figure.subplots(), [row["radius"] for row in rows]
    _bars(axes, rows, x, color=BAND_COLOURS["hfc"], marker="o", label="PGD")
    axes.plot(x, [row["bins"] for row in rows], "--", color="grey", label="white noise")
    for marker, (name, parts) in zip(cycle(MARKERS), others.items(), strict=False):
        if theirs := parts.get("energy"):
            x = [row["radius"] for row in theirs]
            _bars(axes, theirs, x, color="grey", marker=marker, ls="-.", label=name, zorder=1)
    axes.set(xlabel="radius (DFT bins)", ylabel="share beyond", ylim=(0, 1))
    _shares_on_top(axes, side)
    figure.legend(loc="outside right upper", fontsize=10)
    return figure


def _gallery(rows: list[dict], images: Tensor, side: int) -> Figure | None:
    chosen = max(rows, key=lambda row: row["correct"])
    if not chosen["first"]:
        return None
    some, cut = images[chosen["first"][:4]].cpu(), _cut(chosen["radius"], side).replace(" (", "\n(")
    columns = [some, *split(some, chosen["radius"])]
    figure = Figure(figsize=(5.5, 1.9 * len(some)), layout="constrained")
    for place, axes in enumerate(figure.subplots(len(some), 3, squeeze=False).flat):
        picture = columns[place % 3][place // 3][:3].float()
        picture = picture - picture.min() if place % 3 == 2 else picture
        picture = picture / picture.max().clamp_min(1e-6) if place % 3 == 2 else picture.clamp(0, 1)
        axes.imshow((picture.permute(1, 2, 0) if len(picture) == 3 else picture[0]).numpy(), cmap="gray")
        axes.set(xticks=[], yticks=[])
        if place < 3:
            axes.set_title(("image", f"LFC, {cut}", "HFC, stretched")[place], fontsize=11)
    return figure
