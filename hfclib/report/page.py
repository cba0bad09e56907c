"""The figure of a table; and the page of a report, one HTML file with SVG that follows the reader's colours."""

import html as escape
import io
import re
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from hfclib.frequency import in_bins, split
from hfclib.report.metric import counted

INK = "#010203"  # of lines and letters, replaced by the colour of the page's text
LOOK = dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK)
LOOK |= {"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 12, "axes.facecolor": "none"}
LOOK |= {"legend.frameon": False, "svg.hashsalt": "hfclib"}
BAND_COLOURS = {"lfc": "#4477AA", "hfc": "#EE6677"}
CSS = """:root{color-scheme:light dark;--ground:#fff;--ink:#1b1b1b;--line:#ccc}
@media (prefers-color-scheme:dark){:root{--ground:#16181c;--ink:#e6e6e6;--line:#444}}
body{background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;
padding:0 1rem}svg{max-width:100%;height:auto}
table{border-collapse:collapse;font-size:14px;display:block;overflow-x:auto}
td,th{border-bottom:1px solid var(--line);padding:.2rem .6rem;text-align:right}code{overflow-wrap:anywhere}"""
TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{title}</title><style>{css}</style></head><body><h1>{title}</h1><p id="summary">{summary}</p>
{body}<h2>Settings</h2><table>{settings}</table></body></html>
"""


def summary(report) -> str:
    """One paragraph in plain words on what the network reads."""
    rows = report.content["parts"]["accuracy"]
    chance = 1 / report.content["key"]["settings"]["classes"]
    said = [f"On whole images the network is right for {_share(rows[0])}; guessing gives {chance:.1%}."]
    if rows[0]["low"] <= chance:
        said.append("It can't be told from guessing, so that the rest says little.")
    radii = report.content["key"]["settings"]["radii"]
    radius = radii[(len(radii) - 1) // 2]
    low, high = (
        next(row for row in rows if (row["band"], row["radius"], row["feed"], row["bn_stats"]) == wanted)
        for wanted in (("lfc", radius, "raw", "running"), ("hfc", radius, "mean", "running"))
    )
    text = (
        f"Cut at radius {radius}, it is right for {_share(low)} by the low frequencies alone, and for {_share(high)} by"
    )
    apart = low["low"] > high["high"] or high["low"] > low["high"]
    more = "low" if low["accuracy"] > high["accuracy"] else "high"
    reads = f"more from the {more} ones" if apart else "about as much from either"
    said.append(f"{text} the high ones with the mean colour: it reads {reads}.")
    energy, heat = report.content["parts"]["energy"], report.content["parts"]["heat_map"]
    worst = max(heat, key=lambda row: row["error"])
    place = f"({worst['row']}, {worst['column']}) cycles per image"
    said.append(f"Noise along one frequency harms most at {place}: the error is then {1 - worst['accuracy']:.1%}.")
    text = "Of a PGD perturbation's energy, {:.0%} lies at or beyond radius {}; white noise would have {:.0%} there."
    said += [text.format(row["share"], row["radius"], row["bins"]) for row in energy[len(energy) // 2 :][:1]]
    return " ".join(said)


def _share(row: dict) -> str:
    return f"{row['accuracy']:.1%} (95 % interval {row['low']:.1%} to {row['high']:.1%}, n = {row['images']:,})"


def html(report, images: Tensor) -> str:
    """The page of a finished report; `images` (N, C, H, W) are those that the gallery is drawn from."""
    key, found = report.content["key"], report.content["parts"]
    settings = key["settings"]
    lookup = {radius: in_bins(radius, images) for radius in settings["radii"]}
    table = report.table()
    with mpl.rc_context(LOOK):
        sections = {
            "Accuracy by band": (plot(table.assign(radius=table["radius"].map(lookup))), "accuracy"),
            "Fourier heat map": (_heat_map(found["heat_map"]), None),
            "Accuracy under noise of one band": (_noise(found["noise"]), "noise"),
            "Where an attack puts its energy": (_energy(found["energy"], lookup), "energy"),
            "Misaligned images": (_gallery(found["misaligned"], images, lookup), "misaligned"),
        }
        body = "".join(
            f"<h2>{title}</h2>{_svg(figure, title)}<p>{NOTES[title]}</p>"
            + (report.table(part).round(4).to_html(index=False, border=0, na_rep="") if part else "")
            for title, (figure, part) in sections.items()
        )
    lines = {**settings, "weights, SHA-256": key["weights_sha256"], "data, SHA-256": report.content["data_sha256"]}
    lines["hfclib"] = report.content["hfclib"]
    cells = "".join(
        f"<tr><th>{name}</th><td><code>{escape.escape(str(value))}</code></td></tr>" for name, value in lines.items()
    )
    title = escape.escape(f"What {settings['name']} reads, by frequency")
    text = escape.escape(report.content["summary"])
    return TEMPLATE.format(title=title, css=CSS, summary=text, body=body, settings=cells)


NOTES = {
    "Accuracy by band": """LFC: the frequencies below the radius, as they are. HFC: the others, as they are (dotted) or
with the mean colour added. Pale lines: BatchNorm with the statistics of the test batch, or moments matched to those of
the first images. Bars are 95 % Wilson intervals; the grey line is the accuracy on whole images.""",
    "Fourier heat map": """Error rate when noise of fixed L2 norm along one Fourier basis vector is added to the pixels,
before any normalisation. The centre is frequency zero. The numbers are in heat_map.csv.""",
    "Accuracy under noise of one band": "Gaussian noise of the same norm, in one band of frequencies.",
    "Where an attack puts its energy": """Mean share of the energy of a PGD perturbation (L2) at or beyond each radius;
the dashed line is what white noise has there.""",
    "Misaligned images": """Right as they are and by their HFC with the mean colour, wrong by their LFC. Columns: the
image, its LFC, its HFC, stretched for the eye. In the table accuracy is the share of such images.""",
}


def _svg(figure: Figure | None, title: str) -> str:
    if figure is None:
        return ""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)  # needless within HTML
    return text.replace(INK, "currentColor").replace("<svg", f'<svg role="img" aria-label="{title}"', 1)


def _bars(axes, rows: list[dict], x: list[float], **look) -> None:
    y, low, high = (np.array([row[name] for row in rows]) for name in ("accuracy", "low", "high"))
    axes.errorbar(x, y, [y - low, high - y], capsize=3, **look)


def plot(table: pd.DataFrame) -> Figure:
    """Accuracy by radius: one curve with 95 % Wilson intervals per band, feed and kind of statistics.

    Args:
        table: from `band_accuracy`, `BandAccuracy.compute` or `Report.table`, with all radii in DFT bins, or all in
            shares of Nyquist (`in_bins`).
    Returns:
        A figure of Matplotlib, as for `savefig`. A grey line is the accuracy on whole images, if the table has it.
    Raises:
        ValueError: radii of both kinds.
    """
    bands, whole = table[table["band"] != "x"], table[table["band"] == "x"]
    radii = bands["radius"].astype(float)
    if ((radii > 0) & (radii < 1)).any() and (radii > 1).any():
        raise ValueError(f"expected radii all in bins or all in shares of Nyquist, got {sorted(set(radii))}")
    unit = "share of Nyquist" if (radii % 1).any() and radii.max() <= 1 else "cycles per image"
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for accuracy in whole["accuracy"][:1]:
        axes.axhline(accuracy, color="grey", lw=1)
    for (band, feed, statistics), some in bands.groupby(["band", "feed", "bn_stats"], sort=False):
        rows = [counted(round(row.accuracy * row.images), row.images) for row in some.itertuples()]
        look = {"ls": ":" if (band, feed) == ("hfc", "raw") else "-", "alpha": 1 if statistics == "running" else 0.45}
        label = f"{band.upper()}, {feed}, {statistics}"
        _bars(axes, rows, list(some["radius"]), label=label, color=BAND_COLOURS[band], marker="o", **look)
    axes.set(xlabel=f"radius ({unit})", ylabel="accuracy", ylim=(0, 1))
    figure.legend(loc="outside right upper", fontsize=10)
    return figure


def _heat_map(rows: list[dict]) -> Figure:
    across, down = ({sign * row[name] for row in rows for sign in (1, -1)} for name in ("column", "row"))
    across, down = sorted(across), sorted(down)
    values = np.full((len(down), len(across)), np.nan)
    for row in rows:
        for sign in (1, -1):
            values[down.index(sign * row["row"]), across.index(sign * row["column"])] = row["error"]
    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    axes = figure.subplots()
    edges = [[2 * at[0] - at[1], *at, 2 * at[-1] - at[-2]] if len(at) > 1 else [-1, 0, 1] for at in (across, down)]
    x, y = ([(a + b) / 2 for a, b in pairwise(at)] for at in edges)
    shown = axes.pcolormesh(x, y, values, cmap="magma", vmin=0, vmax=1, rasterized=True)
    axes.set(xlabel="cycles per image, across", ylabel="cycles per image, down", aspect="equal")
    figure.colorbar(shown, label="error rate")
    return figure


def _noise(rows: list[dict]) -> Figure:
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    _bars(axes, rows, list(range(len(rows))), color=BAND_COLOURS["hfc"], marker="o", ls="")
    axes.set_xticks(range(len(rows)), [f"{row['from_bins']:.3g} to {row['to_bins']:.3g}" for row in rows])
    axes.set(xlabel="band of the noise (cycles per image)", ylabel="accuracy", ylim=(0, 1))
    return figure


def _energy(rows: list[dict], lookup: dict) -> Figure | None:
    if not rows:
        return None
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes, x = figure.subplots(), [lookup[row["radius"]] for row in rows]
    _bars(
        axes, [{**row, "accuracy": row["share"]} for row in rows], x, color=BAND_COLOURS["hfc"], marker="o", label="PGD"
    )
    axes.plot(x, [row["bins"] for row in rows], "--", color="grey", label="white noise")
    axes.set(xlabel="radius (cycles per image)", ylabel="share beyond", ylim=(0, 1))
    axes.legend()
    return figure


def _gallery(rows: list[dict], images: Tensor, lookup: dict) -> Figure | None:
    chosen = max(rows, key=lambda row: row["correct"])
    if not chosen["first"]:
        return None
    some = images[chosen["first"][:4]].cpu()
    columns = [some, *split(some, lookup[chosen["radius"]])]
    figure = Figure(figsize=(5.5, 1.9 * len(some)), layout="constrained")
    for place, axes in enumerate(figure.subplots(len(some), 3, squeeze=False).flat):
        picture = columns[place % 3][place // 3][:3].float()
        picture = picture - picture.min() if place % 3 == 2 else picture
        picture = picture / picture.max().clamp_min(1e-6) if place % 3 == 2 else picture.clamp(0, 1)
        axes.imshow((picture.permute(1, 2, 0) if len(picture) == 3 else picture[0]).numpy(), cmap="gray")
        axes.set(xticks=[], yticks=[])
        if place < 3:
            axes.set_title(("image", f"LFC, radius {chosen['radius']}", "HFC, stretched")[place], fontsize=11)
    return figure
