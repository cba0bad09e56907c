"""The chapter's figures and the table beside them, from stored results or from a detector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
from torch import Tensor, nn

from hfclib.charts import BAND_COLOURS, STYLE, VIBRANT, WIDTH, Look, blank, drawn_in, legend, panels, show_image
from hfclib.data import to_float
from hfclib.paper.detection.bccd import BCCD_CLASSES
from hfclib.paper.detection.claims import MATCHED_RADIUS, PAPER_DETECTION
from hfclib.paper.detection.measure import WHOLE_IMAGE, DetectorInput, coco_truth, detect
from hfclib.paper.tables import decimals, text_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

_LOOKS = {  # name and look of what a detector is fed
    ("x", "raw"): ("image", Look("black", "D")),
    ("lfc", "raw"): ("LFC", Look(BAND_COLOURS["lfc"], "o")),
    ("hfc", "mean"): ("HFC, mean colour added", Look(BAND_COLOURS["hfc"], "s")),
    ("hfc", "raw"): ("HFC, raw", Look(BAND_COLOURS["hfc"], "^", ":")),
}
_MIRROR = VIBRANT["teal"]
_CLASS_COLOURS = ("#006B3C", "black", "#0057D9")  # dark: they must be seen on pale pictures
_SHOWN_SCORE = 0.5  # boxes with a higher score are drawn


def _over_seeds(ax: Axes, rows: pd.DataFrame, column: str, label: str, look: Look) -> None:
    """A line through the means over seeds, and one small point per seed."""
    means = rows.groupby("radius")[column].mean()
    ax.plot(means.index, means, color=look.colour, marker=look.marker, ls=look.dashes, markersize=7, label=label)
    ax.plot(rows["radius"], rows[column], ".", color=look.colour, markersize=4, alpha=0.6)


def _radius_axis(ax: Axes, results: pd.DataFrame, radius: float) -> None:
    radii = sorted(results["radius"].dropna().unique())
    ax.axvline(radius, color="0.6", linestyle=":")
    ax.set(xscale="log", xticks=radii, xticklabels=[f"{one:g}" for one in radii], xlabel="radius (DFT bins)")
    ax.minorticks_off()
    ax.spines[["top", "right"]].set_visible(False)


def map_figure(results: pd.DataFrame, radius: float) -> Figure:
    """mAP by radius, one line per band, with a mark at `radius`; beside it what the paper published for COCO.

    `results` come from `gather_detections`, here and below.
    """
    with drawn_in(STYLE):
        figure = blank(WIDTH, 4.2)
        ours, paper = figure.subplots(1, 2, sharey=True, width_ratios=[2, 1])
        for (band, feed), (name, look) in _LOOKS.items():
            rows = results[(results["band"] == band) & (results["feed"] == feed)]
            if band == "x":
                ours.axhline(rows["mAP"].mean(), color=look.colour, label=name)
            else:
                _over_seeds(ours, rows, "mAP", name, look)
        _radius_axis(ours, results, radius)
        ours.set(ylabel="mAP", title="Ours: BCCD")
        legend(figure)
        for place, band in enumerate(("x", "lfc", "hfc")):
            (_, look), value = _LOOKS[band, "raw"], PAPER_DETECTION[f"mAP {band}"]
            paper.plot(place, value, look.marker, color=look.colour, mfc="white", markersize=9)
            paper.annotate(decimals(value), (place, value), (0, 9), textcoords="offset points", ha="center")
        paper.set(xticks=[0, 1, 2], xticklabels=["image", "LFC", "HFC"], xlim=(-0.6, 2.6))
        paper.set_title("Paper: COCO,\nr = 128")
        paper.spines[["top", "right"]].set_visible(False)
        ours.set_ylim(bottom=0)
    return figure


def better_figure(results: pd.DataFrame, radius: float, size: tuple[int, int] = (240, 180)) -> Figure:
    """The share of images with an object found better on the LFC, by radius, beside the mirror image's.

    The paper's share stands at the radius that keeps the same share of the bins of pictures of `size`, width and height
    in pixels.
    """
    with drawn_in(STYLE):
        figure, (ax,) = panels([""], height=3.2, beside=1.6)
        lfc, mirror = results[results["band"] == "lfc"], results[results["band"] == "mirror"]["better"]
        (_, look), value = _LOOKS["lfc", "raw"], PAPER_DETECTION["better lfc"]
        _over_seeds(ax, lfc, "better", "better on the LFC than on the image", look)
        _over_seeds(ax, lfc, "worse", "better on the image than on the LFC", Look("0.45", "v"))
        ax.axhline(mirror.mean(), color=_MIRROR, label="better on the mirror image than on the image")
        ax.axhspan(mirror.min(), mirror.max(), color=_MIRROR, alpha=0.15, linewidth=0)
        _radius_axis(ax, lfc, radius)
        label = f"paper: better on the LFC, {decimals(value)} (COCO, r = 128)"
        ax.plot(MATCHED_RADIUS * size[0] / 240, value, "o", color=look.colour, mfc="white", markersize=9, label=label)
        ax.set(ylabel="share of images", ylim=(0, 1.03))
        legend(figure, columns=1)
    return figure


def _outline(bbox: Sequence[float], label: int) -> Rectangle:
    """A box, given by left, top, width and height, in the colour of its class."""
    from matplotlib.patches import Rectangle

    return Rectangle(bbox[:2], *bbox[2:], fill=False, edgecolor=_CLASS_COLOURS[label - 1], linewidth=1.8)


def boxes_figure(model: nn.Module, image: Tensor, target: dict, colour: Tensor, radii: Sequence[float]) -> Figure:
    """An image with what is labelled and what the detector finds in it, in its LFC and in its HFC at each radius.

    Args:
        model: in evaluation mode.
        image, target: (3, H, W) uint8 and its objects, as from `evaluation_data`.
        colour: (3,) the data set's mean colour, which is added to the HFC.
        radii: DFT bins.
    """
    picture = to_float(image)[None]
    asked = {"found in the image": WHOLE_IMAGE}
    asked |= {f"LFC, r = {radius}": DetectorInput("lfc", "raw", radius) for radius in radii}
    asked |= {f"HFC, r = {radius}": DetectorInput("hfc", "mean", radius) for radius in radii}
    drawn = {"labelled": (picture, coco_truth([target])["annotations"])}
    for title, fed in asked.items():
        sure = [box for box in detect(model, picture, fed, colour) if box["score"] > _SHOWN_SCORE]
        drawn[title] = fed.of(picture, colour), sure
    with drawn_in(STYLE):
        figure = blank(2.32 * (1 + len(radii)), 4.7)
        axes = figure.subplots(2, 1 + len(radii))
        places = [*axes[:, 0], *axes[0, 1:], *axes[1, 1:]]
        for ax, (title, (shown, boxes)) in zip(places, drawn.items(), strict=True):
            show_image(ax, shown[0], title)
            for box in boxes:
                ax.add_patch(_outline(box["bbox"], box["category_id"]))
        handles = [_outline((0, 0, 1, 1), label) for label in range(1, len(BCCD_CLASSES) + 1)]
        figure.legend(handles, BCCD_CLASSES, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _over_seeds_text(values: pd.Series) -> str:
    spread = f" ({decimals(values.min())} to {decimals(values.max())})" if len(values) > 1 else ""
    return decimals(values.mean()) + spread


def bands_table(results: pd.DataFrame, radius: float) -> pd.DataFrame:
    """One row per band at a radius: ours as mean, lowest and highest over seeds, and the paper's."""
    rows, paper = {}, {name: decimals(value) for name, value in PAPER_DETECTION.items()}
    names = {key: look[0] for key, look in _LOOKS.items()} | {("mirror", "raw"): "mirror image"}
    for (band, feed), name in names.items():
        at = results["radius"].isna() | (results["radius"] == radius)
        cells = results[(results["band"] == band) & (results["feed"] == feed) & at]
        rows[name] = {
            "mAP": _over_seeds_text(cells["mAP"]),
            "mAP50": _over_seeds_text(cells["mAP50"]),
            "paper's mAP (COCO)": paper.get(f"mAP {band}", "") if feed == "raw" else "",
            "images with an object found better": "" if band == "x" else _over_seeds_text(cells["better"]),
            "paper's share (COCO)": paper.get(f"better {band}", ""),
        }
    return text_table(rows, ["fed"])
