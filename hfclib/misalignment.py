"""Misaligned images: a network is right on the image, right on its HFC alone, and wrong on its LFC.

The paper's Fig. 2 shows eight of them: images that the network must read by what people hardly see.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import pandas as pd
import torch
from torch import Tensor, nn

from hfclib.data import CLASSES
from hfclib.evaluation import BATCH_SIZE, BN_STATS, BnStats, logits, uses_batch_statistics
from hfclib.feeds import FEEDS, Feed, feed_images
from hfclib.frequency import check_images, split
from hfclib.predictions import Predictions
from hfclib.svd import svd_split

Cut = Literal["fourier", "svd"]
BANDS: dict[Cut, tuple[str, str]] = {"fourier": ("lfc", "hfc"), "svd": ("svd_low", "svd_high")}


def misaligned(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    radius: float,
    *,
    cut: Cut = "fourier",
    feed: Feed = "raw",
    bn_stats: BnStats = "running",
    inclusive: bool = False,
    batch_size: int = BATCH_SIZE,
    fast: bool = False,
    right: Tensor | None = None,
) -> Tensor:
    """Which images the model gets right as they are, right by their high part alone, and wrong by their low part.

    Args:
        model: any module from (N, 3, H, W) to (N, classes).
        images: (N, 3, H, W) float in [0, 1].
        labels: (N,) int64.
        radius: DFT bins, 0 or more.
        cut: "fourier" for LFC and HFC, "svd" for the parts of `svd_split`.
        feed: what the model is fed of the two parts: "raw", "max" or "mean"; the image itself is fed as it is.
        bn_stats, batch_size, fast: as in `evaluation.logits`.
        inclusive: as in `split`.
        right: (N,) bool, where the model is right on the images themselves, if that is known already.
    Returns:
        (N,) bool, on the images' device.
    Raises:
        TypeError, ValueError: as `split`, `feed_images` and `logits`; another cut; labels and images differ in number;
            `right` is no (N,) bool.
    Source: paper, Fig. 2.
    """
    check_images(images)
    if cut not in BANDS:
        raise ValueError(f"expected cut, one of {', '.join(BANDS)}, got {cut!r}")
    if len(labels) != len(images):
        raise ValueError(f"expected one label an image, got {len(labels)} labels for {len(images)} images")
    if right is not None and (right.dtype != torch.bool or right.shape != (len(images),)):
        raise ValueError(f"expected right, ({len(images)},) bool, got {tuple(right.shape)} {right.dtype}")
    parts = split(images, radius, inclusive=inclusive) if cut == "fourier" else svd_split(images, radius)[:2]
    low, high = (feed_images(part, feed, add_mean=part is parts[1]) for part in parts)
    left = torch.ones(len(images), dtype=torch.bool, device=images.device) if right is None else right.clone()
    steps = [(images, True), (high, True), (low, False)]
    for fed, wanted in steps if right is None else steps[1:]:
        # Statistics of the batch hang on which images are in it: then every image is looked at, every time.
        looked_at = torch.ones_like(left) if bn_stats == "batch" and uses_batch_statistics(model) else left.clone()
        if looked_at.any():
            answers = logits(model, fed[looked_at], bn_stats=bn_stats, batch_size=batch_size, fast=fast).argmax(dim=1)
            left[looked_at] &= (answers == labels.to(answers.device)[looked_at]) == wanted
    return left


def count_by_radius(model: nn.Module, images: Tensor, labels: Tensor, radii: Sequence[float], *, feed: Feed = "raw",
                    bn_stats: BnStats = "running") -> list[int]:  # fmt: skip
    """How many images are `misaligned` at each radius, with bfloat16 arithmetic where the device has it.

    Arguments and errors as in `misaligned`; about a second a radius for 10,000 images, width 16 and two CPU cores.
    """
    right = logits(model, images, bn_stats=bn_stats, fast=True).argmax(dim=1) == labels
    options = {"feed": feed, "bn_stats": bn_stats, "fast": True, "right": right}
    return [int(misaligned(model, images, labels, radius, **options).sum()) for radius in radii]


def ask(model: nn.Module, images: Tensor, indices: Sequence[int], radius: float, *, feed: Feed = "raw",
        bn_stats: BnStats = "running") -> tuple[dict[str, Tensor], dict[str, Tensor]]:  # fmt: skip
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


def surest(model: nn.Module, images: Tensor, labels: Tensor, found: Tensor, radius: float, *, count: int,
           without: Sequence[int] = (), feed: Feed = "raw",
           bn_stats: BnStats = "running") -> tuple[list[int], dict[str, Tensor]]:  # fmt: skip
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
    _, sure = ask(model, images, numbers, radius, feed=feed, bn_stats=bn_stats)
    of_the_true_class = sure["HFC"].gather(1, labels[numbers][:, None]).squeeze(1)
    best = of_the_true_class.argsort(descending=True, stable=True)[:count].tolist()
    return [numbers[place] for place in best], {name: values[best] for name, values in sure.items()}


def confidence_table(indices: Sequence[int], sure: Mapping[str, Tensor]) -> pd.DataFrame:
    """Confidences from `ask` as rows: image (its number), part, and a column a class in [0, 1]."""
    rows = [{"image": index, "part": part} | dict(zip(CLASSES, values[place].tolist(), strict=True))
            for place, index in enumerate(indices) for part, values in sure.items()]  # fmt: skip
    return pd.DataFrame(rows, columns=["image", "part", *CLASSES])


def pattern(predictions: Predictions, labels: Tensor, radius: int, *, cut: Cut = "fourier", feed: Feed = "raw",
            bn_stats: BnStats = "running") -> Tensor:  # fmt: skip
    """`misaligned` from stored predictions; (N,) bool.

    Raises:
        KeyError: that condition was not recorded.
    """
    low, high = (predictions.on(band, radius, feed, bn_stats) == labels for band in BANDS[cut])
    return (predictions.on("x", bn_stats=bn_stats) == labels) & high & ~low


def patterns(predictions: Mapping[str, Predictions], labels: Tensor, radius: int, *, feed: Feed = "raw",
             bn_stats: BnStats = "running") -> dict[str, Tensor]:  # fmt: skip
    """`pattern` by panel, of those that were asked under that condition."""
    return {panel: pattern(answers, labels, radius, feed=feed, bn_stats=bn_stats)
            for panel, answers in predictions.items()
            if all(answers.has(band, radius, feed, bn_stats) for band in BANDS["fourier"])}  # fmt: skip


def counts(predictions: Mapping[str, Predictions], labels: Tensor, radii: Sequence[int], *,
           cut: Cut = "fourier") -> pd.DataFrame:  # fmt: skip
    """How many images are misaligned, under every condition that was recorded.

    Args:
        predictions: by panel.
        labels: (N,) of the images they were made on.
        radii: whole DFT bins.
        cut: as in `misaligned`.
    Returns:
        A row a (panel, cut, radius, feed, bn_stats): images (N), and as counts right (on whole images), misaligned, and
        by_chance: how many would be misaligned on average if the answers to the high parts were shuffled among the
        images. A network that gives one answer to every HFC is "right" on those of that class without reading them. A
        network without BatchNorm has one row, "running", for both kinds of statistics.
    """
    rows = []
    for panel, answers in predictions.items():
        for radius in radii:
            for feed in FEEDS:
                for bn_stats in BN_STATS if answers.batch_norm else BN_STATS[:1]:
                    if all(answers.has(band, radius, feed, bn_stats) for band in BANDS[cut]):
                        found = pattern(answers, labels, radius, cut=cut, feed=feed, bn_stats=bn_stats)
                        right = answers.on("x", bn_stats=bn_stats) == labels
                        low, high = (answers.on(band, radius, feed, bn_stats) for band in BANDS[cut])
                        how_often = torch.bincount(high, minlength=len(CLASSES)).double() / len(labels)
                        by_chance = how_often[labels[right & (low != labels)]].sum()
                        rows.append({"panel": panel, "cut": cut, "radius": radius, "feed": feed, "bn_stats": bn_stats,
                                     "images": len(labels), "right": int(right.sum()), "misaligned": int(found.sum()),
                                     "by_chance": by_chance.item()})  # fmt: skip
    return pd.DataFrame(rows)


def by_class(found: Mapping[str, Tensor], labels: Tensor) -> pd.DataFrame:
    """On which classes the misaligned images fall.

    Args:
        found: (N,) bool from `misaligned`, by panel.
        labels: (N,) int64.
    Returns:
        A row a class, a column a panel: counts.
    """
    table = {panel: torch.bincount(labels[mask], minlength=len(CLASSES)).tolist() for panel, mask in found.items()}
    return pd.DataFrame(table, index=pd.Index(CLASSES, name="class"))
