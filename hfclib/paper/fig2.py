"""Fig. 2: misaligned images, which a network classifies correctly as they are and by their HFC, but not by their LFC.

The paper shows eight of them and the blog counts about 600 of 10,000. The chapter shows the eight under our networks,
counts at every radius and under every condition, and cuts images by an SVD in place of the Fourier transform.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING

import pandas as pd
import torch
from pydantic import Field
from torch import Tensor, nn

from hfclib.batching import BATCH_SIZE, logits
from hfclib.charts import CHART, STYLE, Look, blank, drawn_in, legend, lines, network_looks, panels, show_image
from hfclib.conditions import BN_STATS, BnStats
from hfclib.data.cifar import CLASSES, MEAN, TEST_IMAGES, embedded
from hfclib.frequency import split, svd_split
from hfclib.paper.chapter import Chapter
from hfclib.paper.intervals import over_seeds
from hfclib.paper.misalignment import (
    PAPER_INDICES,
    counts_over_seeds,
    fig2_recipes,
    network_titles,
    predicted_images,
    stored_predictions,
)
from hfclib.paper.paper_values import MISALIGNED
from hfclib.paper.parameters import FeedChoice, OneSeed, Radius, StatisticsChoice, several, whole
from hfclib.paper.presets import Preset
from hfclib.paper.tables import cells_of_shares, decimals
from hfclib.paper.width import stated_pair
from hfclib.runs.collect import Runs
from hfclib.transforms import FEEDS, Feed, feed_images, rescaled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _under(counts: pd.DataFrame, feed: str, bn_stats: str) -> pd.DataFrame:
    """The counts under a condition. For a network without BatchNorm: those under "running", whatever `bn_stats` is."""
    with_norm = counts["variant"].isin(counts.loc[counts["bn_stats"] == "batch", "variant"])
    return counts[(counts["feed"] == feed) & ((counts["bn_stats"] == bn_stats) | ~with_norm)]


def confidences(
    model: nn.Module,
    images: Tensor,
    indices: Sequence[int],
    radius: float,
    *,
    feed: Feed = "raw",
    bn_stats: BnStats = "running",
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A model's confidence in each class, on some of the images and on their bands.

    Args:
        model: any module from (N, 3, H, W) to (N, classes).
        images: (N, 3, H, W) float in [0, 1].
        indices: of K images, 1 or more. With bn_stats "batch" each is seen in its test batch of 100.
        radius, feed, bn_stats: as in `misaligned`.
    Returns:
        (parts as fed, confidences), each by "image", "LFC" and "HFC": (K, 3, H, W), and (K, classes) float32, of which
        each row is in [0, 1] with sum 1.
    """
    seen = list(indices)
    if bn_stats == "batch":
        batches = {index // BATCH_SIZE for index in indices}
        seen = [index for index in range(len(images)) if index // BATCH_SIZE in batches]
    lfc, hfc = split(images[seen], radius)
    hfc = feed_images(hfc, feed, add_mean=True, colour=MEAN)
    parts = {"image": images[seen], "LFC": feed_images(lfc, feed), "HFC": hfc}
    found = {name: logits(model, part, bn_stats=bn_stats).softmax(dim=1) for name, part in parts.items()}
    rows = [seen.index(index) for index in indices]
    return {name: part[rows] for name, part in parts.items()}, {name: values[rows] for name, values in found.items()}


def most_confident(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    chosen: Tensor,
    radius: float,
    *,
    count: int,
    without: Sequence[int] = (),
    **condition: str,
) -> tuple[list[int], dict[str, Tensor]]:
    """The misaligned images on whose HFC a model is most confident of the true class.

    Args:
        model, images, radius, condition (feed, bn_stats): as in `confidences`.
        labels: (N,) int64.
        chosen: (N,) bool, from `misaligned`.
        count: how many at most.
        without: indices of images to leave out.
    Returns:
        Their indices, the most confident first, and the `confidences` on them; nothing where no image is left.
    """
    indices = [index for index in chosen.nonzero().squeeze(1).tolist() if index not in without]
    if not indices:
        return [], {}
    _, values = confidences(model, images, indices, radius, **condition)
    of_true_class = values["HFC"].gather(1, labels[indices][:, None]).squeeze(1)
    best = of_true_class.argsort(descending=True, stable=True)[:count].tolist()
    return [indices[place] for place in best], {name: part[best] for name, part in values.items()}


def confidence_table(indices: Sequence[int], values: Mapping[str, Tensor]) -> pd.DataFrame:
    """The `confidences` on images, one row per image and part, one column per class."""
    rows = [[index, part, *one[place].tolist()] for place, index in enumerate(indices) for part, one in values.items()]
    return pd.DataFrame(rows, columns=["image", "part", *CLASSES])


def _beside_chance(counts: pd.DataFrame) -> list[str]:
    return [f"{row.misaligned} (by chance {row.by_chance:.0f})" for row in counts.itertuples()]


def counts_at(counts: pd.DataFrame, radius: int, titles: Mapping[str, str]) -> pd.DataFrame:
    """Counts of misaligned images at one radius, beside the paper's.

    Args:
        counts: from `counts_over_seeds`, of one seed.
        radius: DFT bins.
        titles: from `network_titles`, here and below.
    Returns:
        One row per (statistics, feed), one column per network; text, "not measured" where there are no predictions.
    Raises:
        ValueError: several seeds.
    """
    if len(seeds := sorted(set(counts["seed"]))) > 1:
        raise ValueError(f"expected counts of one seed, got those of {', '.join(map(str, seeds))}")
    table = {}
    for bn_stats, feed in product(BN_STATS, ("raw", "mean", "max")):
        rows = _under(counts, feed, bn_stats).query(f"cut == 'fourier' and radius == {radius}")
        table[bn_stats, feed] = dict(zip(rows["variant"].map(titles), _beside_chance(rows), strict=True))
    frame = pd.DataFrame.from_dict(table, orient="index").dropna(how="all").fillna("not measured")
    return frame.assign(blog="~600" if radius == 12 else "not available to us").rename_axis(["statistics", "feed"])


def mean_ranks(images: Tensor, radii: Iterable[float]) -> dict[float, float]:
    """The mean rank over images (N, C, H, W) that `svd_split` keeps at each radius, to a tenth."""
    factors = torch.linalg.svd(images, full_matrices=False)
    ranks = ((radius, svd_split(images, radius, factors=factors)[2]) for radius in radii)
    return {radius: round(rank.double().mean().item(), 1) for radius, rank in ranks}


_FEED_TITLES = {"raw": "fed as it is", "max": "divided by its maximum", "mean": "mean colour added to HFC"}
_STATS_TITLES = {"running": "running averages", "batch": "test-batch statistics"}
_PANELS: tuple[tuple[Feed, BnStats], ...] = tuple(product(FEEDS, BN_STATS))  # of the panels of `counts_figure`
_TRUE, _TRUE_BAR, _OTHER_BAR = "#00745a", "#66c2a5", "0.75"  # the true class, as text and as a bar; any other


def counts_figure(
    counts: pd.DataFrame, titles: Mapping[str, str], conditions: Sequence[tuple[Feed, BnStats]] = _PANELS
) -> Figure:
    """Misaligned test images against the radius, logarithmic from 10 on: a panel per feed and kind of statistics.

    Args:
        counts: from `counts_over_seeds`; those of the Fourier split are drawn, means over seeds, with a shade from the
            lowest to the highest.
        conditions: of the panels, (feed, bn_stats).
    """
    from matplotlib.ticker import StrMethodFormatter

    counts = counts.query("cut == 'fourier'")
    images, looks = int(counts["images"].max()), network_looks(titles)
    with drawn_in(CHART):
        names = [f"{_FEED_TITLES[feed]};\n{_STATS_TITLES[bn_stats]}" for feed, bn_stats in conditions]
        height = 2.5 if len(conditions) > 1 else 3.2
        figure, axes = panels(
            names, height=height, beside=1.4, xlabel="Radius (DFT bins)", ylabel=f"Misaligned images of {images:,}"
        )
        for ax, condition in zip(axes, conditions, strict=True):
            lines(ax, _under(counts, *condition), "radius", "variant", looks, y="misaligned", spread=("pi", 100), ms=4)
            ax.axhline(MISALIGNED * images, color="0.3", lw=1, ls="--")
            ax.axvline(12, color="0.6", lw=0.8, ls=":")
            ax.title.set_fontsize(12)
            ax.set_yscale("symlog", linthresh=10)
            ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes[0].set_ylim(bottom=0)  # last: it fixes the upper end, which all panels share
        handles = [looks[variant].handle(titles[variant]) for variant in counts["variant"].unique()]
        paper = Look("0.3", dashes="--").handle("the blog's “~600” (r = 12)", lw=1)
        legend(figure, [*handles, paper], columns=1)
    return figure


def _show_bars(ax: Axes, confidence: Tensor, label: int) -> None:
    """The three most likely classes with their confidences, the true one in colour."""
    top = confidence.topk(3)
    for place, (value, number) in enumerate(zip(top.values.tolist(), top.indices.tolist(), strict=True)):
        correct = number == label
        ax.barh(place, value, color=_TRUE_BAR if correct else _OTHER_BAR, height=0.8)
        weight = "bold" if correct else "normal"
        ax.text(0.03, place, f"{CLASSES[number]} {decimals(value, 2)}", va="center", fontsize=12, weight=weight)
    ax.set(xlim=(0, 1), ylim=(2.5, -0.5), xticks=[], yticks=[])
    ax.spines[["top", "right", "bottom"]].set_visible(False)


def examples_figure(
    labels: Tensor,
    indices: Sequence[int],
    parts: Mapping[str, Tensor],
    confidences: Mapping[str, Tensor],
    *,
    network: str,
) -> Figure:
    """Images, their LFC and HFC as fed, the network's confidences, and the HFC stretched: one row per image.

    Args:
        labels: (K,) int64.
        indices: of the K images in the test set.
        parts, confidences: from `confidences`; the parts are clipped to [0, 1] for the eye.
        network: its name, for the heading.
    """
    titles = {"image": "Image", "LFC": "LFC\nas fed", "HFC": "HFC\nas fed"}
    stretched = rescaled(parts["HFC"], "range")
    with drawn_in(STYLE):
        figure = blank(9, 0.75 + 0.95 * len(indices))
        axes = figure.subplots(len(indices), 7, squeeze=False, width_ratios=[1, 1.15, 1, 1.15, 1, 1.15, 1])
        for row, line in enumerate(axes):
            for (name, title), picture, bars in zip(titles.items(), line[0::2], line[1::2], strict=False):
                show_image(picture, parts[name][row], title if row == 0 else "")
                _show_bars(bars, confidences[name][row], labels[row].item())
                bars.set_title("confidence" if row == 0 else "", fontsize=12, color="0.3")
            show_image(line[6], stretched[row], "HFC\nstretched" if row == 0 else "")
            line[0].set_ylabel(f"{CLASSES[labels[row]]}\n(no. {indices[row]})", fontsize=12)
        figure.suptitle(f"Network: {network}", fontsize=12)
    return figure


def gallery_figure(
    images: Tensor,
    labels: Tensor,
    indices: Sequence[int],
    radius: float,
    confidences: Mapping[str, Tensor],
    *,
    across: int = 3,
    network: str,
) -> Figure:
    """Misaligned images, each as image, LFC and stretched HFC, with the predicted class and its confidence below.

    Args:
        images: (N, 3, H, W) in [0, 1].
        labels, indices, confidences, network: as in `examples_figure`.
        radius: DFT bins.
        across: images per line.
    """
    lfc, hfc = split(images, radius)
    shown = {"image": images, "LFC": lfc, "HFC": rescaled(hfc, "range") if len(images) else hfc}
    down = max(1, -(-len(images) // across))
    with drawn_in(STYLE):
        figure = blank(3.1 * across, 0.4 + 1.7 * down)
        axes = figure.subplots(down, 4 * across, squeeze=False, width_ratios=[1, 1, 1, 0.25] * across)
        for ax in axes.flat:
            ax.set_axis_off()
        none = "" if len(images) else "\nNo image is misaligned at this radius."
        figure.suptitle(f"Network: {network}{none}", fontsize=12)
        for number, (column, (name, pictures)) in product(range(len(images)), enumerate(shown.items())):
            ax = axes[number // across, 4 * (number % across) + column]
            ax.set_axis_on()
            show_image(ax, pictures[number])
            value, predicted = (one.item() for one in confidences[name][number].max(dim=0))
            colour = _TRUE if predicted == labels[number] else "black"
            ax.set_xlabel(f"{CLASSES[predicted]}\n{decimals(value, 2)}", fontsize=12, color=colour, labelpad=2)
            ax.set_title(f"no. {indices[number]}" if column == 0 else name, fontsize=12, pad=2)
    return figure


def _cells(counts: pd.DataFrame) -> pd.DataFrame:
    """The cells of the claims: the share of all images, and of PAPER_INDICES, that are misaligned at each radius.

    Both bands are fed raw, with running averages. Measures are such as "misaligned12", "misaligned12_svd" where a
    truncated SVD cuts the image, and "eight12".
    """
    rows = counts.query("feed == 'raw' and bn_stats == 'running'")
    eight = rows["images"].map(lambda count: sum(index < count for index in PAPER_INDICES))  # 0 at smoke, and no share
    shares = rows.assign(misaligned=rows["misaligned"] / rows["images"], eight=rows["eight"] / eight)
    cells = shares.melt(["variant", "seed", "cut", "radius", "images"], ["misaligned", "eight"], "measure", "value")
    end = cells["radius"].astype(str) + cells["cut"].map({"fourier": "", "svd": "_svd"})
    # The eight are the paper's own images, and no sample.
    drawn = cells["images"].where(cells["measure"] == "misaligned")
    return cells_of_shares(cells.assign(measure=cells["measure"] + end, measured="", sample="test", n=drawn))


class Fig2Parameters(OneSeed):
    """The parameters of `notebooks/fig2.ipynb`."""

    radius: Radius = Field(12, title="where the images are cut")
    indices: several(whole(0, TEST_IMAGES - 1, "the number of a test image"), 12) = Field(
        PAPER_INDICES, title="test images to show"
    )
    feed: FeedChoice = Field(
        "raw", title="what a network is fed of a band: in the pictures, the table by class and the gallery"
    )
    bn_stats: StatisticsChoice = Field("running", title="what BatchNorm normalises by, with this feed")


def _evidence(runs: Runs) -> pd.DataFrame:
    found = stored_predictions(runs)
    return counts_over_seeds(found, embedded("test")[1][: predicted_images(found)])


# What `counts_of_all_seeds` shows, by cut and statistics.
PARTS = {
    ("fourier", "running"): "LFC and HFC, running",
    ("fourier", "batch"): "LFC and HFC, test batch",
    ("svd", "running"): "truncated SVD, running",
}


# The set-ups of which all published networks are counted, by preset and by the end of the names in `stated_recipes`.
COUNTED: dict[str, tuple[Preset, str]] = {
    "our schedule": ("laptop", ""),
    "as stated": ("narrow", ""),
    "as stated, crop and flip": ("narrow", "_cropped"),
    "as stated, 16 epochs": ("narrow", "_w32"),
}


def set_up_of(preset: Preset) -> str:
    """How `all_counts` calls the networks of a preset: by its name where they are not in COUNTED."""
    return next((name for name, place in COUNTED.items() if place == (preset, "")), preset)


def all_counts(preset: Preset, runs: Runs) -> pd.DataFrame:
    """The counts of misaligned images under every network whose predictions are stored, and how many are beyond chance.

    Args:
        preset, runs: of the notebook.
    Returns:
        The rows of `counts_over_seeds` with columns set-up, network (its title) and beyond. They are of all published
        networks of COUNTED, or of the notebook's own runs alone (`Chapter.is_own`).
    """
    if FIG2.is_own(preset, runs):
        own = set_up_of(preset)
        titles, counts = {own: network_titles(preset)}, {own: _evidence(runs)}
    else:
        titles = {one: network_titles(*place) for one, place in COUNTED.items()}
        counts = {
            one: _evidence(stated_pair(preset, end)) if end else FIG2.published(preset)
            for one, (preset, end) in COUNTED.items()
        }
    counted = {one: table for one, table in counts.items() if table is not None and not table.empty}
    rows = pd.concat(counted, names=["set-up"]).reset_index("set-up")
    names = [titles[set_up][variant] for set_up, variant in zip(rows["set-up"], rows["variant"], strict=True)]
    network = pd.Categorical(names, dict.fromkeys(name for ones in titles.values() for name in ones.values()))
    rows["set-up"] = pd.Categorical(rows["set-up"], counts)
    return rows.assign(network=network, beyond=rows["misaligned"] - rows["by_chance"])


def extremes_of_counts(counts: pd.DataFrame, radius: int) -> str:
    """The fewest and the most misaligned images at a radius over `all_counts`, and of PAPER_INDICES, in words."""
    rows = counts.query(f"cut == 'fourier' and radius == {radius}")
    raw = rows.query("feed == 'raw' and bn_stats == 'running'")
    return (
        f"Misaligned at r = {radius}, over all networks, seeds, feeds and statistics that are stored: "
        f"from {rows['misaligned'].min()} to {rows['misaligned'].max()} images. Of the paper's eight, at most "
        f"{rows['eight'].max()}; fed raw, with running averages, none under {(raw['eight'] == 0).sum()} of {len(raw)} "
        f"networks, and at most {raw['eight'].max()} under the others."
    )


def cuts_of_all_seeds(counts: pd.DataFrame) -> pd.DataFrame:
    """What the Fourier split and the truncated SVD leave beyond chance: means over seeds with 95 % intervals.

    Args:
        counts: from `all_counts`.
    Returns:
        One row per (set-up, network, radius), running averages; the last column has the interval of the difference
        between the two ways of cutting, under the same networks.
    """
    rows = counts.query("feed == 'raw' and bn_stats == 'running' and radius in (4, 8, 12, 16)")
    wide = rows.pivot_table("beyond", ["set-up", "network", "radius", "seed"], "cut", observed=True).dropna()
    wide = wide.assign(less=wide["svd"] - wide["fourier"])[["fourier", "svd", "less"]]
    cells = wide.groupby(level=[0, 1, 2], observed=True).agg(_mean_count)
    cells = cells.set_axis(["Fourier split", "truncated SVD", "SVD less Fourier"], axis=1)
    cells.attrs["caption"] = "Misaligned images beyond chance, fed raw, running averages: means."
    return cells


def counts_of_all_seeds(counts: pd.DataFrame, radius: int) -> pd.DataFrame:
    """Misaligned images, fed raw, of every network in `all_counts`.

    Returns:
        Index (set-up, network, parts and statistics). First, as means over seeds with 95 % intervals: how many more
        there are than by chance, and how many of PAPER_INDICES are among them, with the number of eight random images
        in brackets. Then one column per seed with cells such as "70 (105)", of 10,000 images, by chance in brackets.
    """
    rows = counts.query(f"feed == 'raw' and radius == {radius}")
    parts = pd.Categorical(map(PARTS.get, zip(rows["cut"], rows["bn_stats"], strict=True)), PARTS.values())
    rows = rows.assign(**{"parts and statistics": parts})
    rows["cell"] = [f"{row.misaligned} ({row.by_chance:.0f})" for row in rows.itertuples()]
    line = ["set-up", "network", "parts and statistics"]
    wide = rows.pivot_table("cell", line, "seed", aggfunc="first", observed=True).fillna("\u2013")
    wide = wide.rename(columns="seed {}".format).rename_axis(columns=None)
    groups = rows.groupby(line, observed=True)
    average = len(PAPER_INDICES) * groups["misaligned"].mean() / groups["images"].mean()
    eight = groups["eight"].apply(_mean_count) + average.map(" ({:.1f})".format)
    wide.insert(0, "of the paper's eight (of eight random images)", eight)
    wide.insert(0, "beyond chance", groups["beyond"].apply(_mean_count))
    wide.attrs["caption"] = "Misaligned images by seed (by chance in brackets)."
    return wide


def _mean_count(counts: pd.Series) -> str:
    estimate = over_seeds(counts)
    mean, low, high = (f"{one:z.1f}" for one in (estimate.mean, estimate.low, estimate.high))
    return f"{mean}\u00a0[{low},\u00a0{high}]" if estimate.seeds > 1 else mean


FIG2 = Chapter(
    name="fig2",
    question="Does a network read what people do not?",
    topic="misaligned images",
    paper="Fig. 2, section 8",
    blog="Fig. 2",
    figures={
        "fig2-images": "weights",
        "fig2-gallery": "weights",
        "fig2-counts": "predictions",
        "fig2-feeds": "predictions",
    },
    recipes=fig2_recipes,
    parameters=Fig2Parameters,
    required=("vanilla", "batchnorm"),
    needs_weights=("vanilla", "batchnorm"),
    evidence=_evidence,
    cells=_cells,
    measures=r"(misaligned|eight)\d+(_svd)?",
)
