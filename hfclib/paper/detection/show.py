"""The chapter's tables and figures: results in, a table or a matplotlib Figure out."""

import base64
import io
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from hfclib.paper.detection import measure
from hfclib.paper.detection.bccd import CLASSES, to_float
from hfclib.paper.detection.claims import MATCHED_RADIUS, PUBLISHED, judge
from hfclib.paper.detection.measure import Condition
from hfclib.paper.detection.store import Run
from hfclib.reports import picture as picture
from hfclib.reports import table as table

_STYLE = {"font.size": 12, "axes.titlesize": 12, "svg.hashsalt": "hfclib", "svg.fonttype": "path"}
_BANDS = {  # name, colour and marker of what a detector is fed
    ("x", "raw"): ("image", "black", ""),
    ("lfc", "raw"): ("LFC", "#0072B2", "o"),
    ("hfc", "mean"): ("HFC, mean colour added", "#882255", "s"),
    ("hfc", "raw"): ("HFC, raw", "#CC79A7", "^"),
}
_CLASS_COLOURS = ("#006B3C", "black", "#0057D9")  # dark: they must be seen on pale pictures
SHOWN_SCORE = 0.5  # boxes that are surer than this are drawn


def number(value: float, digits: int = 3) -> str:
    """A number without its leading zero, as in .356; nothing where there is none."""
    if value is None or np.isnan(value):
        return ""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("0.", ".", 1)  # + 0.0: no minus before a zero


def _rows(results: pd.DataFrame, band: str, feed: str) -> pd.DataFrame:
    return results[(results["band"] == band) & (results["feed"] == feed)]


def _over_seeds(ax: Axes, rows: pd.DataFrame, column: str, label: str, colour: str, marker: str) -> None:
    """A line through the means over seeds, and one small point per seed."""
    means = rows.groupby("radius")[column].mean()
    ax.plot(means.index, means, color=colour, marker=marker, markersize=7, label=label)
    ax.plot(rows["radius"], rows[column], ".", color=colour, markersize=4, alpha=0.6)


def by_radius(results: pd.DataFrame, radius: float) -> Figure:
    """mAP by radius, one line per band, and beside it what the paper published for another data set.

    Args:
        results: from `store.gather`.
        radius: is marked.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.6, 4.4), layout="constrained")
        ours, paper = figure.subplots(1, 2, sharey=True, width_ratios=[3.2, 1])
        for (band, feed), look in _BANDS.items():
            rows = _rows(results, band, feed)
            if band == "x":
                ours.axhline(rows["mAP"].mean(), color="black", label=look[0])
            else:
                _over_seeds(ours, rows, "mAP", *look)
        ours.axvline(radius, color="0.6", linestyle=":")
        radii = sorted(set(results["radius"]) - {0})
        ours.set(xscale="log", xticks=radii, xlabel="radius (DFT bins)", ylabel="mAP", title="Ours: BCCD")
        ours.set_xticklabels([f"{one:g}" for one in radii])
        ours.minorticks_off()
        figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=11)
        for place, key in enumerate(("x", "lfc", "hfc")):
            _, colour, marker = _BANDS[key, "raw"]
            paper.plot(place, PUBLISHED[f"mAP {key}"], marker or "D", color=colour, mfc="white", markersize=9)
            paper.annotate(
                number(PUBLISHED[f"mAP {key}"]),
                (place, PUBLISHED[f"mAP {key}"]),
                (0, 9),
                textcoords="offset points",
                ha="center",
                fontsize=11,
            )
        paper.set(xticks=[0, 1, 2], xlim=(-0.6, 2.6), title="Paper: COCO, r = 128")
        paper.set_xticklabels(["image", "LFC", "HFC"])
        ours.set_ylim(bottom=0)
        for ax in (ours, paper):
            ax.spines[["top", "right"]].set_visible(False)
    return figure


def better(results: pd.DataFrame, radius: float) -> Figure:
    """The share of images with an object found better on the LFC, by radius, beside the mirror image's.

    The paper's share stands at the radius that keeps the same share of the bins.

    Args:
        results: from `store.gather`.
        radius: is marked.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.6, 4.2), layout="constrained")
        ax = figure.subplots()
        lfc, mirror = _rows(results, "lfc", "raw"), _rows(results, "mirror", "raw")["better"]
        _over_seeds(ax, lfc, "better", "better on the LFC than on the image", "#0072B2", "o")
        _over_seeds(ax, lfc, "worse", "better on the image than on the LFC", "0.45", "v")
        ax.axhline(mirror.mean(), color="#009E73", label="better on the mirror image than on the image")
        ax.axhspan(mirror.min(), mirror.max(), color="#009E73", alpha=0.15, linewidth=0)
        ax.axvline(radius, color="0.6", linestyle=":")
        paper = f"paper: better on the LFC, {number(PUBLISHED['better lfc'])} (COCO, r = 128)"
        ax.plot(MATCHED_RADIUS, PUBLISHED["better lfc"], "o", color="#0072B2", mfc="white", markersize=9, label=paper)
        radii = sorted(set(lfc["radius"]))
        ax.set(xscale="log", xticks=radii, xlabel="radius (DFT bins)", ylabel="share of images", ylim=(0, 1.03))
        ax.set_xticklabels([f"{one:g}" for one in radii])
        ax.minorticks_off()
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=11)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def _draw(ax: Axes, image: Tensor, boxes: np.ndarray, labels: np.ndarray, title: str) -> None:
    ax.imshow(image.clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="nearest")
    ax.set(xticks=[], yticks=[], title=title)
    for (left, top, right, bottom), label in zip(boxes, labels, strict=True):
        edge = _CLASS_COLOURS[label - 1]
        ax.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=edge, linewidth=1.8))


def boxes(model: nn.Module, image: Tensor, target: dict, colour: Tensor, radii: Sequence[float]) -> Figure:
    """An image with what is labelled and what the detector finds in it, in its LFC and in its HFC at each radius.

    Args:
        model: in evaluation mode.
        image, target: (3, H, W) uint8 and its objects, as from `store.measured_images`.
        colour: (3,) the data set's mean colour, which is added to the HFC.
        radii: DFT bins, one or more.
    """
    one = to_float(image)[None]
    asked = {"found in the image": Condition("x")}
    asked |= {f"LFC, r = {radius}": Condition("lfc", "raw", radius) for radius in radii}
    asked |= {f"HFC, r = {radius}": Condition("hfc", "mean", radius) for radius in radii}
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(2.5 * (1 + len(radii)), 5), layout="constrained")
        axes = figure.subplots(2, 1 + len(radii))
        _draw(axes[0, 0], one[0], target["boxes"].numpy(), target["labels"].numpy(), "labelled")
        places = [axes[1, 0], *axes[0, 1:], *axes[1, 1:]]
        for ax, (title, condition) in zip(places, asked.items(), strict=True):
            (found,) = measure.detect_in(model, one, condition, colour)
            sure = found["scores"] > SHOWN_SCORE
            _draw(ax, measure.fed(one, condition, colour)[0], found["boxes"][sure], found["labels"][sure], title)
        handles = [Rectangle((0, 0), 1, 1, fill=False, edgecolor=edge, linewidth=1.8) for edge in _CLASS_COLOURS]
        figure.legend(handles, CLASSES, loc="outside lower center", ncols=3, frameon=False)
    return figure


def summary(results: pd.DataFrame, radius: float) -> pd.DataFrame:
    """One row per band at a radius: ours as mean, lowest and highest over seeds, and the paper's."""
    seeds, rows = results["seed"].nunique(), []
    named = {**{key: look[0] for key, look in _BANDS.items()}, ("mirror", "raw"): "mirror image"}
    for (band, feed), name in named.items():
        cells = _rows(results, band, feed)
        cells = cells[cells["radius"].isin([0, radius])]
        texts = [number(cells[column].mean()) + _range(cells[column], seeds) for column in ("mAP", "mAP50", "better")]
        paper = PUBLISHED.get(f"mAP {band}") if feed == "raw" else None
        share = PUBLISHED.get(f"better {band}")
        rows.append((name, *texts[:2], number(paper), "" if band == "x" else texts[2], number(share)))
    columns = [
        "fed",
        "mAP",
        "mAP50",
        "paper's mAP (COCO)",
        "images with an object found better",
        "paper's share (COCO)",
    ]
    return pd.DataFrame(rows, columns=columns).set_index("fed")


def _range(values: pd.Series, seeds: int) -> str:
    return f" ({number(values.min())} to {number(values.max())})" if seeds > 1 else ""


def margins(model: nn.Module, images: Tensor, targets: Sequence[dict], colour: Tensor, radius: float) -> pd.DataFrame:
    """The share of images on which an object is found better by more than a margin, on the LFC and on the mirror image.

    Args:
        model: in evaluation mode.
        images, targets, colour: from `store.measured_images`.
        radius: DFT bins.
    """
    truth, averages = measure.truth_of(targets), {}
    asked = {"image": Condition("x"), "LFC": Condition("lfc", "raw", radius), "mirror": Condition("mirror")}
    for name, condition in asked.items():
        found = measure.detect_in(model, to_float(images), condition, colour)
        averages[name] = measure.score(truth, measure.results_of(found)).per_image
    rows = []
    for margin in (0, 0.05, 0.1, 0.2):
        counts = [len(measure.better_images(averages["image"], averages[name], margin)) for name in ("LFC", "mirror")]
        rows.append([f"more than {margin:g}", *(number(count / len(images), 2) for count in counts)])
    return pd.DataFrame(rows, columns=["better by", "on the LFC", "on the mirror image"]).set_index("better by")


def verdicts(results: pd.DataFrame) -> pd.DataFrame:
    """The claims with our number and its 95 % interval, the rule, the paper's number and the verdict, as text."""
    found, rows = judge(results), []
    rules = {"above": "difference above {}", "share": "ratio of at least {}", "at least": "at least {}"}
    for row in found.itertuples():
        ours = number(row.ours) + ("" if np.isnan(row.low) else f" [{number(row.low)}, {number(row.high)}]")
        bound = number(row.bound, 1) if row.bound else "0"
        paper = "not measured" if pd.isna(row.paper) else number(row.paper)
        rows.append((row.claim, rules[row.relation].format(bound), ours, paper, row.verdict))
    columns = ["claim", "reproduced if", "ours [95 % interval over seeds]", "paper (COCO)", "verdict"]
    return pd.DataFrame(rows, columns=columns).set_index("claim")


def provenance(name: str, runs: Sequence[Run], figure: Figure, rows: pd.DataFrame) -> HTML:
    """One line on where a figure comes from, with its table as CSV and the picture as SVG to take away."""
    svg = io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None})
    links = ['<a href="../_sources/notebooks/detection.ipynb">notebook</a>']
    for content, kind, suffix, text in (
        (rows.to_csv(index=False).encode(), "text/csv", "csv", "table (CSV)"),
        (svg.getvalue(), "image/svg+xml", "svg", "figure (SVG)"),
    ):
        data = base64.b64encode(content).decode()
        links.append(f'<a download="{name}.{suffix}" href="data:{kind};base64,{data}">{text}</a>')
    minutes = sum(run.provenance["train_seconds"] for run in runs) / 60
    commits = ", ".join(sorted({commit[:7] for run in runs for commit in run.provenance["commits"]}))
    devices = " and ".join(sorted({run.provenance["device"] for run in runs}))
    seeds = f"seed{'s' * (len(runs) > 1)} {', '.join(str(run.seed) for run in runs)}"
    behind = f"preset {runs[0].settings.preset}, {seeds}; commit {commits}; trained in {minutes:.0f} minutes on "
    return HTML(f'<p class="hfc-provenance">{behind}{devices}. {" · ".join(links)}</p>')
