"""Misaligned images: a network is right on the image, right on its HFC alone, and wrong on its LFC.

The paper's Fig. 2 shows eight of them: images that the network must read by what people hardly see.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import matplotlib as mpl
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from torch import Tensor, nn

from hfclib.data.cifar import CLASSES, TEST_IMAGES, embedded
from hfclib.evaluation import (
    BANDS,
    BATCH_SIZE,
    BN_STATS,
    PAPER_RADII,
    BnStats,
    Cut,
    logits,
    misaligned,
    uses_batch_statistics,
)
from hfclib.frequency import split
from hfclib.paper.chapter import Chapter
from hfclib.paper.intervals import Estimate, share_of
from hfclib.paper.parameters import FeedChoice, OneSeed, Radius, StatisticsChoice, several, whole
from hfclib.paper.presets import Preset, base_recipe, fig4_recipes
from hfclib.paper.published import MISALIGNED
from hfclib.paper.style import FIG2_TITLES, STYLE, network_looks, show_image
from hfclib.paper.tables import CONDITIONS, decimals
from hfclib.paper.verdicts import Claim, slug
from hfclib.runs.collect import Runs
from hfclib.runs.predictions import Predictions, predictions_of
from hfclib.runs.store import Run
from hfclib.training.recipe import RADII, Recipe
from hfclib.transforms import FEEDS, Feed, feed_images, rescaled


def count_by_radius(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    radii: Sequence[float],
    *,
    feed: Feed = "raw",
    bn_stats: BnStats = "running",
) -> list[int]:
    """How many images are `misaligned` at each radius, with bfloat16 arithmetic where the device has it.

    Arguments and errors as in `misaligned`; about a second a radius for 10,000 images, width 16 and two CPU cores.
    """
    right = logits(model, images, bn_stats=bn_stats, amp=True).argmax(dim=1) == labels
    options = {"feed": feed, "bn_stats": bn_stats, "amp": True, "right": right}
    return [int(misaligned(model, images, labels, radius, **options).sum()) for radius in radii]


def confidences(
    model: nn.Module,
    images: Tensor,
    indices: Sequence[int],
    radius: float,
    *,
    feed: Feed = "raw",
    bn_stats: BnStats = "running",
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """How sure a model is of each class, on some of the images and on their bands.

    Args:
        model: any module from (N, 3, H, W) to (N, classes).
        images: (N, 3, H, W) float in [0, 1].
        indices: K numbers of images. With bn_stats "batch" each is seen in its test batch: the block of 100 it lies in.
        radius, feed, bn_stats: as in `misaligned`.
    Returns:
        (parts as fed, confidences), each by "image", "LFC" and "HFC": (K, 3, H, W), and (K, classes) float32, of which
        each row is in [0, 1] with sum 1.
    """
    seen = list(indices)
    if bn_stats == "batch" and uses_batch_statistics(model):
        batches = sorted({index // BATCH_SIZE for index in indices})
        seen = [index for batch in batches for index in range(len(images))[batch * BATCH_SIZE :][:BATCH_SIZE]]
    if not seen:
        names = ("image", "LFC", "HFC")
        return dict.fromkeys(names, images[:0]), {name: torch.empty(0, len(CLASSES)) for name in names}
    lfc, hfc = split(images[seen], radius)
    parts = {"image": images[seen], "LFC": feed_images(lfc, feed), "HFC": feed_images(hfc, feed, add_mean=True)}
    sure = {name: logits(model, part, bn_stats=bn_stats).softmax(dim=1) for name, part in parts.items()}
    rows = [seen.index(index) for index in indices]
    return {name: part[rows] for name, part in parts.items()}, {name: values[rows] for name, values in sure.items()}


def most_confident(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    found: Tensor,
    radius: float,
    *,
    count: int,
    without: Sequence[int] = (),
    feed: Feed = "raw",
    bn_stats: BnStats = "running",
) -> tuple[list[int], dict[str, Tensor]]:
    """The misaligned images of whose true class a model is surest by their HFC.

    Args:
        model, images, radius, feed, bn_stats: as in `ask`.
        labels: (N,) int64.
        found: (N,) bool, from `misaligned`.
        count: how many at most.
        without: numbers of images to leave out.
    Returns:
        Their numbers, surest first, and the confidences from `ask` on them.
    """
    numbers = [number for number in found.nonzero().squeeze(1).tolist() if number not in without]
    _, sure = confidences(model, images, numbers, radius, feed=feed, bn_stats=bn_stats)
    of_the_true_class = sure["HFC"].gather(1, labels[numbers][:, None]).squeeze(1)
    best = of_the_true_class.argsort(descending=True, stable=True)[:count].tolist()
    return [numbers[place] for place in best], {name: values[best] for name, values in sure.items()}


def confidence_table(indices: Sequence[int], sure: Mapping[str, Tensor]) -> pd.DataFrame:
    """Confidences from `ask` as rows: image (its number), part, and a column a class in [0, 1]."""
    rows = [
        {"image": index, "part": part} | dict(zip(CLASSES, values[place].tolist(), strict=True))
        for place, index in enumerate(indices)
        for part, values in sure.items()
    ]
    return pd.DataFrame(rows, columns=["image", "part", *CLASSES])


def pattern(
    predictions: Predictions,
    labels: Tensor,
    radius: int,
    *,
    cut: Cut = "fourier",
    feed: Feed = "raw",
    bn_stats: BnStats = "running",
) -> Tensor:
    """`misaligned` from stored predictions; (N,) bool.

    Raises:
        KeyError: that condition was not recorded.
    """
    low, high = (predictions.on(band, radius, feed, bn_stats) == labels for band in BANDS[cut])
    return (predictions.on("x", bn_stats=bn_stats) == labels) & high & ~low


def patterns(
    predictions: Mapping[str, Predictions],
    labels: Tensor,
    radius: int,
    *,
    feed: Feed = "raw",
    bn_stats: BnStats = "running",
) -> dict[str, Tensor]:
    """`pattern` by variant, of those that were asked under that condition."""
    return {
        variant: pattern(answers, labels, radius, feed=feed, bn_stats=bn_stats)
        for variant, answers in predictions.items()
        if all(answers.has(band, radius, feed, bn_stats) for band in BANDS["fourier"])
    }


def misaligned_counts(
    predictions: Mapping[str, Predictions], labels: Tensor, radii: Sequence[int], *, cut: Cut = "fourier"
) -> pd.DataFrame:
    """How many images are misaligned, under every condition that was recorded.

    Args:
        predictions: by variant.
        labels: (N,) of the images they were made on.
        radii: whole DFT bins.
        cut: as in `misaligned`.
    Returns:
        One row per (variant, cut, radius, feed, bn_stats): images (N), and as counts right (on whole images),
        misaligned, and
        by_chance: how many would be misaligned on average if the answers to the high parts were shuffled among the
        images. A network that gives one answer to every HFC is "right" on those of that class without reading them. A
        network without BatchNorm has one row, "running", for both kinds of statistics.
    """
    rows = []
    for variant, answers in predictions.items():
        for radius in radii:
            for feed in FEEDS:
                for bn_stats in BN_STATS if answers.batch_norm else BN_STATS[:1]:
                    if all(answers.has(band, radius, feed, bn_stats) for band in BANDS[cut]):
                        found = pattern(answers, labels, radius, cut=cut, feed=feed, bn_stats=bn_stats)
                        right = answers.on("x", bn_stats=bn_stats) == labels
                        low, high = (answers.on(band, radius, feed, bn_stats) for band in BANDS[cut])
                        how_often = torch.bincount(high, minlength=len(CLASSES)).double() / len(labels)
                        by_chance = how_often[labels[right & (low != labels)]].sum()
                        rows.append(
                            {
                                "variant": variant,
                                "cut": cut,
                                "radius": radius,
                                "feed": feed,
                                "bn_stats": bn_stats,
                                "images": len(labels),
                                "right": int(right.sum()),
                                "misaligned": int(found.sum()),
                                "by_chance": by_chance.item(),
                            }
                        )
    return pd.DataFrame(rows)


def misaligned_by_class(found: Mapping[str, Tensor], labels: Tensor) -> pd.DataFrame:
    """On which classes the misaligned images fall.

    Args:
        found: (N,) bool from `misaligned`, by variant.
        labels: (N,) int64.
    Returns:
        A row a class, a column a variant: counts.
    """
    table = {variant: torch.bincount(labels[mask], minlength=len(CLASSES)).tolist() for variant, mask in found.items()}
    return pd.DataFrame(table, index=pd.Index(CLASSES, name="class"))


def fig2_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """The networks whose misaligned images are counted: vanilla and batchnorm of Fig. 4, and fullwidth.

    Source: paper, Fig. 2, which does not say how its network was trained. fullwidth is a ResNet-18 of the published
    width with BatchNorm and a schedule that brings it to a common accuracy in little time, its early epochs on smaller
    images; only "smoke" and "laptop" have it.
    """
    variants = fig4_recipes(preset)
    chosen = {"vanilla": variants["vanilla"], "batchnorm": variants["batchnorm"]}
    base = base_recipe(preset)
    schedule = {"norm": "batch", "optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 5e-4, "label_smoothing": 0.1}
    if preset == "laptop":
        chosen["fullwidth"] = replace(
            base,
            name="laptop-fullwidth",
            width=64,
            epochs=20,
            early_sizes=(16,) * 8 + (24,) * 7,
            eval_images=100,
            **schedule,
        )
    elif preset == "smoke":
        chosen["fullwidth"] = replace(base, name="smoke-fullwidth", width=8, early_sizes=(16,), **schedule)
    return chosen


PAPER_INDICES = (95, 134, 633, 692, 2568, 4435, 8267, 8501)  # the test images of the paper's Fig. 2


def counts_over_seeds(predictions: Mapping[str, Mapping[int, Predictions]], labels: Tensor) -> pd.DataFrame:
    """`misaligned_counts` of several variants and seeds, by the Fourier split and by the SVD, with a column seed.

    Args:
        predictions: by variant and seed; variants may have different seeds.
        labels: (N,) of the images they were made on.
    """
    parts = []
    for seed in sorted({seed for ones in predictions.values() for seed in ones}):
        of_seed = {variant: ones[seed] for variant, ones in predictions.items() if seed in ones}
        for cut in BANDS:
            parts.append(misaligned_counts(of_seed, labels, RADII, cut=cut).assign(seed=seed))
    return pd.concat(parts, ignore_index=True)


def of_one_seed(table: pd.DataFrame) -> pd.DataFrame:
    """The table itself, from `misaligned` or `misaligned_counts`.

    Raises:
        ValueError: it has several seeds, which a count an image set and radius can't show.
    """
    seeds = sorted(set(table["seed"])) if "seed" in table else []
    if len(seeds) > 1:
        raise ValueError(f"expected counts of one seed, got those of {', '.join(map(str, seeds))}")
    return table


_RIGHT = {True: "right", False: "wrong"}


def example_table(
    predictions: Mapping[str, Predictions],
    indices: Sequence[int],
    labels: Tensor,
    radius: int,
    feed: Feed,
    bn_stats: BnStats,
) -> pd.DataFrame:
    """Whether networks are right on some images, on their HFC and on their LFC.

    Returns:
        A row an image: its number and class; for each network, text such as "right, wrong, right" in that order, and
        "misaligned" where it is right, right, wrong; "not asked" where the answers do not reach that far, or not to
        that condition.
    """
    rows = []
    for index in indices:
        row = {"image": index, "class": CLASSES[labels[index]]}
        for variant, answers in predictions.items():
            asked = (("x", 0, "raw"), ("hfc", radius, feed), ("lfc", radius, feed))
            known = all(answers.has(*one, bn_stats) for one in asked)
            if not known or index >= len(answers.on("x", bn_stats=bn_stats)):
                row[FIG2_TITLES[variant]] = "not asked"
                continue
            right = [bool(answers.on(*one, bn_stats)[index] == labels[index]) for one in asked]
            text = ", ".join(_RIGHT[one] for one in right)
            row[FIG2_TITLES[variant]] = f"{text}: misaligned" if right == [True, True, False] else text
        rows.append(row)
    return pd.DataFrame(rows).set_index(["image", "class"])


def _beside_chance(row: NamedTuple) -> str:
    return f"{row.misaligned} (by chance {row.by_chance:.0f})"


def counts_at(table: pd.DataFrame, radius: int) -> pd.DataFrame:
    """Counts of misaligned images at one radius: a row a (statistics, feed), a column a network, and the paper's.

    "not asked" where a network's answers do not reach to that condition.

    Args:
        table: from `misaligned`, of one seed.
        radius: DFT bins.
    Raises:
        ValueError: several seeds.
    """
    rows = of_one_seed(table)[(table["cut"] == "fourier") & (table["radius"] == radius)]
    batch_norm = set(table.loc[table["bn_stats"] == "batch", "variant"])
    cells = {}
    for row in rows.itertuples():
        for bn_stats in BN_STATS:
            if row.bn_stats == bn_stats or row.variant not in batch_norm:
                cells.setdefault((bn_stats, row.feed), {})[FIG2_TITLES[row.variant]] = _beside_chance(row)
    frame = pd.DataFrame.from_dict(cells, orient="index").sort_index(ascending=False, kind="stable").fillna("not asked")
    return frame.assign(paper="~600" if radius == 12 else "not published").rename_axis(["statistics", "feed"])


def counts_by_cut(table: pd.DataFrame) -> pd.DataFrame:
    """Counts of misaligned images by the Fourier split and by the truncated SVD, raw, running statistics.

    Args:
        table: from `misaligned`, of one seed.
    Returns:
        A row a radius, a column a network and cut; cells such as "185 (by chance 118)".
    Raises:
        ValueError: several seeds.
    """
    rows = of_one_seed(table)[
        (table["feed"] == "raw") & (table["bn_stats"] == "running") & table["radius"].isin(PAPER_RADII)
    ]
    titles = {"fourier": "Fourier split", "svd": "truncated SVD"}
    cells = [_beside_chance(row) for row in rows.itertuples()]
    rows = rows.assign(column=rows["variant"].map(FIG2_TITLES) + ": " + rows["cut"].map(titles), cell=cells)
    wide = rows.pivot(index="radius", columns="column", values="cell")
    return wide[sorted(wide.columns)].rename_axis(columns=None)


def recount(
    runs: Mapping[str, Run], images: Tensor, labels: Tensor, table: pd.DataFrame, feed: Feed, bn_stats: BnStats
) -> pd.DataFrame:
    """Count again from the weights, and compare with the counts of stored answers.

    Args:
        runs: by variant; at width 16 each takes a few seconds a radius on two CPU cores.
        images: (N, 3, H, W) float in [0, 1].
        labels: (N,) int64.
        table: from `misaligned`, of one seed.
        feed, bn_stats: the condition.
    Returns:
        A row a (variant, radius): now and stored, counts. They may differ by a few images: bfloat16 rounds otherwise in
        another batch or on another machine.
    Raises:
        ValueError: several seeds.
    """
    rows, table = [], of_one_seed(table)
    for variant, run in runs.items():
        own = table[(table["variant"] == variant) & (table["cut"] == "fourier") & (table["feed"] == feed)]
        own = own[own["bn_stats"] == (bn_stats if run.recipe.norm == "batch" else "running")].set_index("radius")
        made = count_by_radius(run.model(), images, labels, list(own.index), feed=feed, bn_stats=bn_stats)
        rows += [
            {"variant": variant, "radius": radius, "now": now, "stored": own.loc[radius, "misaligned"]}
            for radius, now in zip(own.index, made, strict=True)
        ]
    return pd.DataFrame(rows)


# None of its networks is trained adversarially, so that the authors' feed is the same for all.
# How Fig. 2 itself was fed is not published.
_CLAIM_CONDITIONS = {
    "raw": ("raw", "running"),
    "authors' code": ("max", "batch"),
    "controlled": CONDITIONS["controlled"],
}


def _misaligned_share(counts: pd.DataFrame, *, variant: str, cuts: tuple[str, ...], version: str) -> Estimate:
    feed, bn_stats = _CLAIM_CONDITIONS[version]
    rows = counts[(counts["variant"] == variant) & (counts["radius"] == 12) & (counts["feed"] == feed)]
    stats = set(rows["bn_stats"])
    rows = rows[rows["bn_stats"] == (bn_stats if bn_stats in stats else "running")]
    shares = rows.assign(share=rows["misaligned"] / rows["images"])
    wide = shares.pivot_table(index="seed", columns="cut", values="share").reindex(columns=list(cuts)).dropna()
    return share_of(wide, int(rows["images"].max()) if len(rows) else 0)


def _fig2_claims() -> Iterator[Claim]:
    for variant, title in FIG2_TITLES.items():
        for version in _CLAIM_CONDITIONS:
            yield Claim(
                id=f"fig2-count-{variant}-{slug(version)}",
                figure="fig2",
                section="blog",
                text=f"About 600 of 10,000 test images (.06) are misaligned at r = 12: {title}",
                version=version,
                relation="about",
                bound=MISALIGNED,
                paper=decimals(MISALIGNED, 2),
                statistic=partial(_misaligned_share, variant=variant, cuts=("fourier",), version=version),
            )
        yield Claim(
            id=f"fig2-svd-{variant}",
            figure="fig2",
            section="section 8",
            version="raw",
            relation="exceeds",
            text="Cut by a truncated SVD, fewer images are misaligned than cut by the Fourier transform, at r = 12: "
            f"{title}",
            statistic=partial(_misaligned_share, variant=variant, cuts=("fourier", "svd"), version="raw"),
        )


_FEED_TITLES = {"raw": "fed as it is", "max": "divided by its maximum", "mean": "mean colour added to HFC"}
_STATS_TITLES = {"running": "running averages", "batch": "statistics of the test batch"}


def counts_figure(counts: pd.DataFrame) -> Figure:
    """How many test images are misaligned against the radius: a row a kind of statistics, a column a feed.

    Args:
        counts: `misaligned_counts` of the Fourier split, of one seed.
    Returns:
        A Figure; a colour and marker a network, counts on an axis that is logarithmic from 10 on. The dashed line is
        the paper's "~600" of 10,000 images.
    Raises:
        ValueError: several seeds.
    """
    variants = list(dict.fromkeys(of_one_seed(counts)["variant"]))
    images = int(counts["images"].max())
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 5), layout="constrained")
        axes = figure.subplots(2, 3, sharex=True, sharey=True)
        for line, bn_stats in zip(axes, BN_STATS, strict=True):
            for ax, feed in zip(line, FEEDS, strict=True):
                for variant, (colour, marker) in network_looks(variants).items():
                    rows = counts[(counts["variant"] == variant) & (counts["feed"] == feed)]
                    if bn_stats in set(rows["bn_stats"]) or set(rows["bn_stats"]) == {"running"}:
                        kind = bn_stats if bn_stats in set(rows["bn_stats"]) else "running"
                        rows = rows[rows["bn_stats"] == kind]
                        ax.plot(
                            rows["radius"],
                            rows["misaligned"],
                            color=colour,
                            marker=marker,
                            ms=3.5,
                            lw=1.2,
                            label=FIG2_TITLES[variant],
                        )
                ax.axhline(MISALIGNED * images, color="0.3", lw=1, ls="--", label="the paper's “~600” (r = 12)")
                ax.axvline(12, color="0.6", lw=0.8, ls=":")
                ax.set_title(f"{_FEED_TITLES[feed]};\n{_STATS_TITLES[bn_stats]}", fontsize=9)
                ax.set_yscale("symlog", linthresh=10)
                ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
                ax.grid(alpha=0.3, lw=0.5)
        axes[0, 0].set_ylim(bottom=0)  # last: it freezes the upper end, which all variants share
        for ax in axes[1]:
            ax.set_xlabel("Radius (DFT bins)")
        figure.supylabel(f"Misaligned images of {images:,}")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def classes_figure(table: pd.DataFrame, radius: int) -> Figure:
    """On which classes the misaligned images fall: bars a class, a colour a network.

    Args:
        table: from `misaligned_by_class`.
        radius: for the axis title, DFT bins.
    """
    looks = network_looks(list(table.columns))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 3.2), layout="constrained")
        ax = figure.subplots()
        width = 0.8 / len(looks)
        for number, (variant, (colour, _)) in enumerate(looks.items()):
            places = [place + (number - (len(looks) - 1) / 2) * width for place in range(len(table))]
            ax.bar(places, table[variant], width, color=colour, label=FIG2_TITLES[variant])
        ax.set_xticks(range(len(table)), table.index, rotation=30, ha="right")
        ax.set(xlabel="True class", ylabel=f"Misaligned images at r = {radius}")
        ax.grid(alpha=0.3, lw=0.5, axis="y")
        figure.legend(*ax.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


_TRUE, _TRUE_BAR, _OTHER_BAR = "#00745a", "#66c2a5", "0.75"  # the true class, as text and as a bar; any other


def _bars(ax, confidence: Tensor, label: int, shown: int = 3) -> None:
    """The likeliest classes with their confidences, the true one in colour."""
    top = confidence.topk(shown)
    for place, (value, number) in enumerate(zip(top.values.tolist(), top.indices.tolist(), strict=True)):
        right = number == label
        ax.barh(place, value, color=_TRUE_BAR if right else _OTHER_BAR, height=0.8)
        ax.text(
            0.03,
            place,
            f"{CLASSES[number]} {decimals(value, 2)}",
            va="center",
            fontsize=7.5,
            color="black",
            fontweight="bold" if right else "normal",
        )
    ax.set(xlim=(0, 1), ylim=(shown - 0.5, -0.5), xticks=[], yticks=[])
    for side in ("top", "right", "bottom"):
        ax.spines[side].set_visible(False)


def examples_figure(
    labels: Sequence[int],
    indices: Sequence[int],
    parts: Mapping[str, Tensor],
    confidences: Mapping[str, Tensor],
    *,
    network: str = "",
) -> Figure:
    """A row an image: the image, its LFC and HFC as the network gets them, its confidences, and the HFC stretched.

    Args:
        labels: the K true classes.
        indices: the K numbers of the images in the test set.
        parts, confidences: from `confidences`; the eye sees the parts clipped to [0, 1].
        network: whose they are, for the heading.
    """
    titles = {"image": "Image", "LFC": "LFC, as fed", "HFC": "HFC, as fed"}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 0.55 + 0.95 * len(indices)), layout="constrained")
        axes = figure.subplots(len(indices), 7, squeeze=False, width_ratios=[1, 1.15, 1, 1.15, 1, 1.15, 1])
        for row, line in enumerate(axes):
            first = row == 0
            for column, (name, title) in enumerate(titles.items()):
                show_image(line[2 * column], parts[name][row], title if first else "")
                _bars(line[2 * column + 1], confidences[name][row], labels[row])
                if first:
                    line[2 * column + 1].set_title("confidence", fontsize=8, color="0.3")
            show_image(line[6], rescaled(parts["HFC"][row : row + 1], "range")[0], "HFC, stretched" if first else "")
            line[0].set_ylabel(f"{CLASSES[labels[row]]}\n(no. {indices[row]})", fontsize=8)
        if network:
            figure.suptitle(f"Network: {network}", fontsize=10)
    return figure


def gallery_figure(
    images: Tensor,
    labels: Sequence[int],
    indices: Sequence[int],
    radius: float,
    confidences: Mapping[str, Tensor],
    *,
    across: int = 4,
    network: str = "",
) -> Figure:
    """Misaligned images, each as image, LFC and stretched HFC, with the network's answer under each.

    Args:
        images: (N, 3, H, W) in [0, 1].
        labels, indices: as in `fig2`.
        radius: DFT bins.
        confidences: as in `fig2`.
        across: images a line.
        network: whose the answers are, for the heading.
    """
    lfc, hfc = split(images, radius)
    shown = {"image": images, "LFC": lfc, "HFC": rescaled(hfc, "range") if len(images) else hfc}
    down = max(1, -(-len(images) // across))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.4 * across, 0.3 + 1.3 * down), layout="constrained")
        axes = figure.subplots(down, 4 * across, squeeze=False, width_ratios=[1, 1, 1, 0.25] * across)
        for ax in axes.flat:
            ax.set_axis_off()
        heads = [f"Network: {network}"] * bool(network) + ["No image is misaligned at this radius."] * (not len(images))
        if heads:
            figure.suptitle("\n".join(heads), fontsize=10)
        for number in range(len(images)):
            line, start = axes[number // across], 4 * (number % across)
            for column, (name, pictures) in enumerate(shown.items()):
                ax = line[start + column]
                ax.set_axis_on()
                value, answer = confidences[name][number].max(dim=0)
                right = int(answer) == labels[number]
                show_image(ax, pictures[number])
                text = f"{CLASSES[answer]}\n{decimals(float(value), 2)}"
                ax.set_xlabel(text, fontsize=7, color=_TRUE if right else "black", labelpad=2)
                head = f"no. {indices[number]}" if column == 0 else name
                ax.set_title(head, fontsize=7, pad=2)
    return figure


class Fig2Parameters(OneSeed):
    """The parameters of `notebooks/fig2.ipynb`."""

    radius: Radius = 12
    indices: several(whole(0, TEST_IMAGES - 1, "the number of a test image"), 12) = PAPER_INDICES
    feed: FeedChoice = "raw"
    bn_stats: StatisticsChoice = "running"


def _evidence(runs: Runs) -> pd.DataFrame:
    answers = {variant: {one.seed: predictions_of(one) for one in ones} for variant, ones in runs.items()}
    return counts_over_seeds(answers, embedded("test")[1])


FIG2 = Chapter(
    name="fig2",
    recipes=fig2_recipes,
    parameters=Fig2Parameters,
    optional=("fullwidth",),
    claims=tuple(_fig2_claims()),
    evidence=_evidence,
    seeds=(0,),
)
