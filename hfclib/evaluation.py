"""Accuracy of a network on images and on their frequency bands.

Two choices change what is measured:

- feed: "raw" is the band as `split` returns it; "max" divides it by the image's own maximum (the authors' standard
  runs); "mean" adds the mean colour of the data set to an HFC, so that only the band changes and not the brightness.
- bn_stats: BatchNorm normalises by its "running" averages (standard), or by the statistics of each test "batch" of 100
  images (the authors' code).
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Literal, NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from hfclib.devices import arithmetic, device_of
from hfclib.frequency import check_images, split, svd_split
from hfclib.transforms import FEEDS, Feed, feed_images

BnStats = Literal["running", "batch"]
BN_STATS: tuple[BnStats, ...] = ("running", "batch")
PAPER_RADII = (4, 8, 12, 16)
BATCH_SIZE = 100  # the authors' test batch; with bn_stats="batch" it is part of the definition
CURVE_COLUMNS = ["split", "band", "radius", "feed", "bn_stats", "images", "accuracy"]


class Condition(NamedTuple):
    """What a network is fed, and how its BatchNorm normalises; `feed` and `bn_stats` as in `hfclib.evaluation`."""

    band: str  # "x" for whole images, "lfc", "hfc", "svd_low" or "svd_high"
    radius: float = 0  # of the cut, in DFT bins; 0 with "x"
    feed: Feed = "raw"
    bn_stats: BnStats = "running"

    def canonical(self, batch_norm: bool) -> "Condition":
        """The one of several equivalent conditions that is measured and stored."""
        # A low part with the mean colour is the raw one, and without BatchNorm both kinds of statistics are one.
        same = self.band in ("lfc", "svd_low") and self.feed == "mean"
        return self._replace(feed="raw" if same else self.feed, bn_stats=self.bn_stats if batch_norm else "running")


@contextmanager
def evaluating(model: nn.Module, bn_stats: BnStats = "running") -> Iterator[None]:
    """A context with the model in evaluation mode and BatchNorm with the chosen statistics; both are restored."""
    if bn_stats not in BN_STATS:
        raise ValueError(f"expected bn_stats, one of {', '.join(BN_STATS)}, got {bn_stats!r}")
    modes = [(module, module.training) for module in model.modules()]
    norms = [module for module, _ in modes if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    averages = [(norm, norm.running_mean, norm.running_var) for norm in norms if bn_stats == "batch"]
    model.eval()
    try:
        for norm, _, _ in averages:  # without running averages PyTorch normalises by the batch in evaluation mode too
            norm.running_mean = norm.running_var = None
        yield
    finally:
        for norm, mean, var in averages:
            norm.running_mean, norm.running_var = mean, var
        for module, mode in modes:
            module.training = mode


def uses_batch_statistics(model: nn.Module) -> bool:
    """Whether the model has a BatchNorm layer, so that `bn_stats` makes a difference."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


@torch.inference_mode()
def logits(
    model: nn.Module, images: Tensor, *, bn_stats: BnStats = "running", batch_size: int = BATCH_SIZE, amp: bool = False
) -> Tensor:
    """Logits of images, in batches, on the model's device, with the model in evaluation mode.

    Args:
        model, images: any module to (N, classes); (N, C, H, W) float, [0, 1] or a band.
        bn_stats: "running" or "batch"; with "batch" the batch size matters.
        amp: bfloat16 arithmetic where the device has it; accuracies then differ by up to about .002.
    Returns:
        (N, classes) float32 on the device of the images.
    Raises:
        TypeError, ValueError: images are not a non-empty float (N, C, H, W) tensor, or another bn_stats.
    """
    check_images(images)
    if len(images) == 0:
        raise ValueError("expected at least one image, got none")
    device = device_of(model)
    with evaluating(model, bn_stats), arithmetic(device, amp=amp):
        batches = (batch.to(device, memory_format=torch.channels_last) for batch in images.split(batch_size))
        return torch.cat([model(batch).float().to(images.device) for batch in batches])


def accuracy(model: nn.Module, images: Tensor, labels: Tensor, **options) -> float:
    """Share of images in [0, 1] whose largest logit is at their label, (N,); options and errors as in `logits`."""
    check_labels(labels, images)
    return _share_correct(logits(model, images, **options).argmax(dim=1), labels)


def check_labels(labels: Tensor, images: Tensor) -> None:
    """Raise TypeError or ValueError if images are not (N, C, H, W), or labels not (N,)."""
    check_images(images)
    if labels.shape != images.shape[:1]:
        raise ValueError(f"expected one label per image, got labels {tuple(labels.shape)} for {len(images)} images")


def _share_correct(predictions: Tensor, labels: Tensor) -> float:
    return (predictions == labels.to(predictions.device)).float().mean().item()


def band_conditions(
    radii: Iterable[float], batch_norm: bool, other_radii: Iterable[float] | None = None
) -> Iterator[Condition]:
    """The conditions under which the bands are measured, radius by radius, each once: canonical ones only.

    Args:
        radii: at which the bands are fed raw, with running statistics.
        batch_norm: whether the network has BatchNorm.
        other_radii: at which the other feeds and the batch statistics are used; None takes PAPER_RADII among `radii`.
    """
    radii = list(radii)
    others = [radius for radius in PAPER_RADII if radius in radii] if other_radii is None else list(other_radii)
    for radius, bn_stats, feed, band in product(sorted({*radii, *others}), BN_STATS, FEEDS, ("hfc", "lfc")):
        condition = Condition(band, radius, feed, bn_stats)
        listed = radii if (feed, bn_stats) == ("raw", "running") else others
        if radius in listed and condition == condition.canonical(batch_norm):
            yield condition


def band_accuracy(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    radii: Sequence[float] = PAPER_RADII,
    *,
    feed: Feed = "raw",
    bn_stats: BnStats = "running",
    amp: bool = False,
) -> pd.DataFrame:
    """Accuracy on the LFC and HFC of images (N, 3, H, W) at each radius.

    Args:
        model, images, labels: any module to (N, classes), images in [0, 1], and (N,) whole numbers.
        radii: DFT bins, each 0 or more.
        feed, bn_stats, amp: see `hfclib.evaluation` and `logits`.
    Returns:
        One row per radius and band: radius, band ("lfc", "hfc"), feed, bn_stats, images (number), accuracy in [0, 1].
    Raises:
        TypeError, ValueError: as `split`, `feed_images` and `logits`.
    Source: paper, section 4.2 and Fig. 5.
    """
    wanted = [Condition(band, radius, feed, bn_stats) for radius in radii for band in ("lfc", "hfc")]
    columns = ["radius", "band", "feed", "bn_stats", "images", "accuracy"]
    return pd.DataFrame(_measure(model, images, labels, wanted, amp=amp), columns=columns)


def _measure(model, images, labels, wanted: Iterable[Condition], *, amp: bool, kept: dict | None = None) -> Iterator:
    check_labels(labels, images)
    cut, bands = None, {}
    for condition in wanted:
        band, radius, feed, bn_stats = condition
        if radius != cut:
            cut, bands = radius, dict(zip(("lfc", "hfc"), split(images, radius), strict=True))
        predictions = (kept or {}).get(condition)
        if predictions is None:
            fed = feed_images(bands[band], feed, add_mean=band == "hfc")
            predictions = logits(model, fed, bn_stats=bn_stats, amp=amp).argmax(dim=1)
        if kept is not None:
            kept[condition] = predictions.to("cpu", torch.uint8)
        yield condition._asdict() | {"images": len(images), "accuracy": _share_correct(predictions, labels)}


def training_band_rows(model: nn.Module, images: Tensor, labels: Tensor) -> list[dict]:
    """Rows (CURVE_COLUMNS, split "train") of the accuracy on the raw bands of training images, at PAPER_RADII.

    Arguments and errors as in `band_accuracy`; the labels are those of the training. Source: paper, Fig. 3.
    """
    statistics = BN_STATS if uses_batch_statistics(model) else BN_STATS[:1]
    wanted = [Condition(band, r, "raw", s) for r, s, band in product(PAPER_RADII, statistics, ("lfc", "hfc"))]
    return [{"split": "train", **row} for row in _measure(model, images, labels, wanted, amp=True)]


class Part(NamedTuple):
    """Images (N, 3, H, W) float on which a run measures the accuracy, and their columns; "x" is the whole image."""

    split: str
    images: Tensor
    labels: Tensor
    band: str = "x"
    radius: int = -1
    feed: str = "raw"


def curve_rows(
    model: nn.Module,
    parts: Sequence[Part],
    test: tuple[Tensor, Tensor],
    radii: Iterable[float],
    *,
    exact: bool = False,
    kept: dict | None = None,
) -> list[dict]:
    """The rows that a run records after an epoch: the parts, then every band of `band_conditions`.

    Args:
        parts, test: whole images; and (images float in [0, 1], labels), whose bands are measured.
        radii: DFT bins.
        exact: float32 for the parts, so that another machine gets the same accuracy; bands may use bfloat16.
        kept: known predictions by `Condition`, (N,) uint8; the others are added.
    Returns:
        Rows with the columns CURVE_COLUMNS.
    """
    batch_norm, rows = uses_batch_statistics(model), []
    for part in parts:
        for bn_stats in BN_STATS if batch_norm else BN_STATS[:1]:
            measured = accuracy(model, part.images, part.labels, bn_stats=bn_stats, amp=not exact)
            values = part.split, part.band, part.radius, part.feed, bn_stats, len(part.labels), measured
            rows.append(dict(zip(CURVE_COLUMNS, values, strict=True)))
    wanted = band_conditions(radii, batch_norm)
    return rows + [{"split": "test", **row} for row in _measure(model, *test, wanted, amp=True, kept=kept)]


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
    **options,
) -> Tensor:
    """Which images the model classifies correctly as they are and by their high part alone, but not by their low part.

    Args:
        model, images, labels: as in `band_accuracy`.
        radius: DFT bins, 0 or more.
        cut: "fourier" for LFC and HFC, "svd" for the parts of `svd_split`.
        feed: of the two parts; the image itself is fed as it is.
        options: bn_stats, batch_size and amp, as in `logits`.
    Returns:
        (N,) bool, on the device of the images.
    Raises:
        TypeError, ValueError: another cut, or as `split`, `feed_images` and `logits`.
    Source: paper, Fig. 2.
    """
    check_labels(labels, images)
    if cut not in BANDS:
        raise ValueError(f"expected cut, one of {', '.join(BANDS)}, got {cut!r}")
    low, high, *_ = split(images, radius) if cut == "fourier" else svd_split(images, radius)
    fed = images, feed_images(high, feed, add_mean=True), feed_images(low, feed)
    correct, by_high, by_low = (logits(model, one, **options).argmax(dim=1) == labels.to(one.device) for one in fed)
    return correct & by_high & ~by_low
