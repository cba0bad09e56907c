"""Accuracy of a network on images and on their frequency bands, and the images that it gets right from the HFC alone.

`hfclib.conditions` says what the arguments `feed` and `bn_stats` choose.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from hfclib.batching import (
    BATCH_SIZE,
    Labels,
    batches,
    check_channels_first,
    check_labels,
    check_pixels,
    evaluated_batches,
    logits,
    pair_of,
)
from hfclib.conditions import (
    BANDS,
    BN_STATS,
    PAPER_RADII,
    BnStats,
    Condition,
    Cut,
    band_conditions,
    evaluating,
    iter_inputs,
    lacks_mean,
    uses_batch_statistics,
)
from hfclib.frequency import check_images, each_radius, split, svd_split
from hfclib.transforms import Feed, feed_images

CURVE_COLUMNS = ["split", "band", "radius", "feed", "bn_stats", "images", "accuracy"]


def accuracy(model: nn.Module, images: Tensor | Iterable, labels: Labels = None, **options) -> float:
    """Share of images whose largest logit is at their label.

    Args:
        model, images, labels: any module to (N, classes); whole images, or bands with pixels from -100 to 100,
            (N, C, H, W) float, and (N,) whole numbers, or batches of them; see `batches`.
        options: bn_stats, batch_size and amp, as in `logits`.
    Returns:
        A share in [0, 1], exact: 54 of 60 images are 54 / 60.
    Warns:
        UserWarning: the first batch is as of images that are normalised, or divided by 255 twice; see `batches`.
    Raises:
        TypeError, ValueError: as `logits`; labels of another number, type or range; or batches with other keys.
    """
    how = options.get("bn_stats", "running"), options.get("batch_size", BATCH_SIZE)
    stream = evaluated_batches(model, images, labels, *how, max_abs=100)
    correct, total = 0, 0
    for part, classes in stream:
        correct, total = (
            correct + int((logits(model, part, **options).argmax(dim=1) == classes).sum()),
            total + len(part),
        )
    return correct / total


def mean_colour(images: Tensor | Iterable, *, progress: bool = False) -> list[float]:
    """The mean colour of images, one number per channel, as the feed "mean" adds it to an HFC.

    Args:
        images: (N, C, H, W) float in [0, 1], or batches of images and labels that can be read again, see `batches`.
        progress: show a bar, on a terminal.
    Raises:
        TypeError, ValueError: no images, or others than these; or batches that can be read only once.
    """
    if isinstance(images, Tensor):
        check_images(images)
        check_pixels(images)
        if len(images) == 0:
            raise ValueError("expected at least one image, got none")
        return _mean_of([images])[0]
    parts = tqdm(_read_again(images), "mean colour", disable=None if progress else True, leave=False)
    return _mean_of(pair_of(batch)[0] for batch in parts)[0]


def _read_again(stream: Iterable) -> Iterable:
    if iter(stream) is stream:
        wanted = "colour, or data that can be read more than once, such as a DataLoader"
        raise ValueError(f"expected {wanted}, got an iterator: its mean colour is known only at its end")
    return stream


def _mean_of(parts: Iterable[Tensor]) -> tuple[list[float], int]:
    """The mean colour of all images, and their number."""
    total, count = torch.zeros((), dtype=torch.float64, device="cpu"), 0
    for part in parts:
        check_channels_first(check_images(part))
        check_pixels(part)
        count += len(part)
        # Summed in float64: the last bits of float32 hang on the size and the order of the batches.
        total = total + part.mean(dim=(2, 3), dtype=torch.float32).to("cpu", torch.float64).sum(dim=0)
    if count == 0:
        raise ValueError("expected at least one image, got none")
    return (total / count).tolist(), count


def band_accuracy(
    model: nn.Module,
    images: Tensor | Iterable,
    labels: Labels = None,
    radii: float | Sequence[float] = PAPER_RADII,
    *,
    feed: Feed = "mean",
    bn_stats: BnStats = "running",
    colour: Sequence[float] | None = None,
    amp: bool = False,
) -> pd.DataFrame:
    """Accuracy on the LFC and HFC of images at each radius.

    Args:
        model, images, labels: any module to (N, classes), or a `Classifier`; see `batches`.
        radii: one or more, in DFT bins, 0 or at least 1; `hfclib.nyquist` converts shares of the Nyquist frequency.
        feed, bn_stats, amp: see `hfclib.conditions` and `logits`.
        colour: what "mean" adds, a number per channel; None takes that of all the images (`mean_colour`): batches are
            then read twice, first for their colour.
    Returns:
        One row per radius and band: radius, band ("lfc", "hfc"), feed, bn_stats, images (number), accuracy in [0, 1].
    Raises:
        TypeError, ValueError: as `accuracy`; images outside [0, 1]; a negative radius, or one between 0 and 1; or no
            colour, and batches that can be read only once or are others the second time.
    Source: paper, section 4.2 and Fig. 5.
    """
    cuts = list(product(each_radius(radii), ("lfc", "hfc")))
    correct, total, seen = [0] * len(cuts), 0, None
    with evaluating(model, bn_stats):  # which refuses statistics that can't be chosen, before all images are read
        pass
    if colour is None and feed == "mean":
        if labels is None:  # labels and sizes are checked on the way, before the network is asked for all the images
            colour, seen = _mean_of(part for part, _ in batches(model, _read_again(images)))
        else:
            tensor = check_images(images)
            colour, seen = mean_colour(tensor), len(tensor)
        logging.getLogger(__name__).info("the mean colour of %s images is %s", seen, colour)
    for part, classes in evaluated_batches(model, images, labels, bn_stats, BATCH_SIZE):
        wanted = [Condition(band, radius, feed, bn_stats) for radius, band in cuts]
        for place, row in enumerate(_measure(model, part, classes, wanted, amp=amp, colour=colour)):
            correct[place] += round(row["accuracy"] * len(part))
        total += len(part)
    if seen not in (None, total):
        raise ValueError(f"expected the same images each time they are read, got {seen} and then {total}: give colour")
    rows = [(*cut, feed, bn_stats, total, count / total) for cut, count in zip(cuts, correct, strict=True)]
    return pd.DataFrame(rows, columns=["radius", "band", "feed", "bn_stats", "images", "accuracy"])


def misaligned(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    radius: float,
    *,
    cut: Cut = "fourier",
    feed: Feed = "raw",
    colour: Sequence[float] | None = None,
    **options,
) -> Tensor:
    """Which images, (N,) bool, are classified correctly as they are and by their high part, but not by their low part.

    Args:
        model, images, labels, radius: a module and tensors as in `band_accuracy`, and one radius.
        cut: "fourier" for LFC and HFC, "svd" for the parts of `svd_split`.
        feed, colour: of the two parts, as in `band_accuracy`, but raw unless told otherwise; the image itself is fed as
            it is. None takes the mean of these images.
        options: bn_stats, batch_size and amp, as in `logits`.
    Raises:
        TypeError, ValueError: as `band_accuracy`, or another cut.
    Source: paper, Fig. 2.
    """
    if len(radii := each_radius(radius)) != 1:
        raise ValueError(f"expected one radius, got {radii}")
    (radius,) = radii
    ((images, labels),) = batches(model, images, labels)
    if cut not in BANDS:
        raise ValueError(f"expected cut, one of {', '.join(BANDS)}, got {cut!r}")
    low, high, *_ = split(images, radius) if cut == "fourier" else svd_split(images, radius)
    colour = mean_colour(images) if colour is None else colour
    high = feed_images(high, feed, add_mean=lacks_mean(BANDS[cut][1], radius), colour=colour)
    fed = images, high, feed_images(low, feed)
    correct, by_high, by_low = (logits(model, one, **options).argmax(dim=1) == labels for one in fed)
    return correct & by_high & ~by_low


Parts = Mapping[tuple[str, Condition], tuple[Tensor, Tensor]]


def curve_rows(
    model: nn.Module,
    parts: Parts,
    test: tuple[Tensor, Tensor],
    radii: Iterable[float],
    *,
    colour: Sequence[float],
    other_radii: Iterable[float] | None = None,
    exact: bool = False,
    kept: dict | None = None,
) -> list[dict]:
    """The rows (CURVE_COLUMNS) that a run records after an epoch: the parts, then every band of `band_conditions`.

    Args:
        parts: images (N, C, H, W) float as they are fed, and labels, by what their rows say: split, and condition, of
            which both statistics are taken.
        test: (images float in [0, 1], labels), whose bands are measured at `radii`.
        colour: the mean of the data set, as in `band_accuracy`.
        other_radii: of other feeds and statistics, as in `band_conditions`.
        exact: float32 for the parts, so that another machine gets the same accuracy; bands may use bfloat16.
        kept: known predictions by `Condition`, (N,) uint8; the others are added.
    """
    batch_norm, rows = uses_batch_statistics(model), []
    for (split_name, condition), (images, labels) in parts.items():
        for bn_stats in BN_STATS if batch_norm else BN_STATS[:1]:
            measured = accuracy(model, images, labels, bn_stats=bn_stats, amp=not exact)
            measured = np.float32(measured).item()  # the precision in which runs store accuracies
            row = {"split": split_name, **condition._asdict(), "bn_stats": bn_stats}
            row |= {"radius": -1} if condition.radius is None else {}  # as stored tables have it
            rows.append({**row, "images": len(labels), "accuracy": measured})
    options = {"amp": True, "kept": kept, "colour": colour}
    measured = _measure(model, *test, band_conditions(radii, batch_norm, other_radii), **options)
    return rows + [{"split": "test", **row} for row in measured]


def training_band_rows(
    model: nn.Module, images: Tensor, labels: Tensor, radii: Iterable[float] = PAPER_RADII
) -> list[dict]:
    """Rows (CURVE_COLUMNS) on the raw bands of training images, at some radii. Source: paper, Fig. 3."""
    statistics = BN_STATS if uses_batch_statistics(model) else BN_STATS[:1]
    wanted = [Condition(band, r, "raw", s) for r, s, band in product(radii, statistics, ("lfc", "hfc"))]
    return [{"split": "train", **row} for row in _measure(model, images, labels, wanted, amp=True)]


def _measure(model, images, labels, wanted: Iterable[Condition], *, amp, kept=None, colour=()) -> Iterator[dict]:
    labels, wanted, known = check_labels(labels, images), list(wanted), dict(kept or {})
    inputs = iter_inputs(images, (condition for condition in wanted if condition not in known), colour)
    for condition in wanted:
        predictions = known.get(condition)
        if predictions is None:
            predictions = logits(model, next(inputs), bn_stats=condition.bn_stats, amp=amp).argmax(dim=1)
        if kept is not None:
            kept[condition] = predictions.to("cpu", torch.uint8)
        accuracy = (predictions == labels.to(predictions.device)).float().mean().item()
        yield condition._asdict() | {"images": len(images), "accuracy": accuracy}
