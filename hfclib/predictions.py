"""What a network answers to every test image and to its bands, stored: counts and shares then cost nothing.

A record (`records`, kind "predictions") holds a class number an image and condition, one byte each. What is computed
here, and what a training asks at its end, goes to `<home>/predictions`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

from hfclib import records
from hfclib.data import embedded, home, to_float
from hfclib.devices import best_device
from hfclib.evaluation import BN_STATS, PAPER_RADII, BnStats, logits
from hfclib.feeds import FEEDS, Feed, feed_images
from hfclib.frequency import split
from hfclib.recipes import RADII
from hfclib.svd import svd_split
from hfclib.verification import RunError

if TYPE_CHECKING:
    from hfclib.runs import Run

# Band, radius, feed and BatchNorm's statistics; ("x", 0, "raw", ...) for whole images.
Condition = tuple[str, int, Feed, BnStats]


def conditions(batch_norm: bool, radii: Iterable[int] = RADII, other_radii: Iterable[int] = RADII) -> list[Condition]:
    """The conditions under which a network can be asked.

    Args:
        batch_norm: whether it has BatchNorm, and so two kinds of statistics.
        radii: at which the bands are fed raw, with running statistics.
        other_radii: at which the other feeds and statistics are asked.
    Returns:
        Whole images first, then radius by radius; an LFC with the mean colour is the raw LFC and not listed. The parts
        of a truncated SVD (`svd.svd_split`) come last, at the paper's radii, raw, with running statistics.
    """
    statistics = BN_STATS if batch_norm else BN_STATS[:1]
    listed: list[Condition] = [("x", 0, "raw", bn_stats) for bn_stats in statistics]
    for radius in sorted({*radii, *other_radii}):
        for bn_stats in statistics:
            for feed in FEEDS:
                if radius in (radii if (feed, bn_stats) == ("raw", "running") else other_radii):
                    bands = ("hfc",) if feed == "mean" else ("lfc", "hfc")
                    listed += [(band, radius, feed, bn_stats) for band in bands]
    return listed + [(band, r, "raw", "running") for r in PAPER_RADII if r in radii for band in ("svd_low", "svd_high")]


@dataclass(frozen=True)
class Predictions:
    """Answers of one network to test images.

    Attributes:
        answers: by condition, (N,) uint8, the number of the class with the largest logit.
        batch_norm: whether the network has BatchNorm.
    """

    answers: dict[Condition, Tensor]
    batch_norm: bool

    def _key(self, band: str, radius: int, feed: Feed, bn_stats: BnStats) -> Condition:
        feed = "raw" if (band, feed) == ("lfc", "mean") else feed
        return band, radius, feed, bn_stats if self.batch_norm else "running"

    def has(self, band: str, radius: int = 0, feed: Feed = "raw", bn_stats: BnStats = "running") -> bool:
        """Whether that condition was recorded."""
        return self._key(band, radius, feed, bn_stats) in self.answers

    def on(self, band: str, radius: int = 0, feed: Feed = "raw", bn_stats: BnStats = "running") -> Tensor:
        """The answers under a condition, (N,) int64.

        Args:
            band: "x" for whole images (radius 0), "lfc", "hfc", "svd_low" or "svd_high".
            radius, feed, bn_stats: as in `evaluation`. An LFC with the mean colour is the raw LFC, and a network
                without BatchNorm answers alike with either kind of statistics.
        Raises:
            KeyError: not recorded.
        """
        return self.answers[self._key(band, radius, feed, bn_stats)].long()


def of(run: "Run", wanted: Iterable[Condition] | None = None, *, progress: bool = True) -> Predictions:
    """What the network of a run answers to the first `final_images` test images.

    Args:
        run: a stored run.
        wanted: conditions; None is all of `conditions`, of a network wider than 16 channels, which takes minutes a
            condition, the feeds other than raw and the batch's statistics only at the paper's radii.
        progress: show a bar while something is computed.
    Returns:
        Stored answers where there are; the others are computed, with bfloat16 arithmetic where the device has it, and
        stored in `<home>/predictions`.
    Raises:
        RunError: a stored file is damaged, or was made with other weights.
    """
    batch_norm = run.recipe.norm == "batch"
    if wanted is None:
        wanted = conditions(batch_norm, other_radii=RADII if run.recipe.width <= 16 else PAPER_RADII)
    asked = list(wanted)
    answers = _parsed(records.load("predictions", run))
    missing = [condition for condition in asked if condition not in answers]
    if missing:
        answers |= _compute(run, missing, progress=progress)
        store(run.path.name, answers, records.weights_of(run.path))
    return Predictions({condition: answers[condition] for condition in asked}, batch_norm)


def _compute(run: "Run", wanted: list[Condition], *, progress: bool) -> dict[Condition, Tensor]:
    images = to_float(embedded("test")[0][: run.recipe.final_images])
    model = run.model().to(best_device())
    factors = torch.linalg.svd(images) if any(band.startswith("svd") for band, *_ in wanted) else None
    made, at = {}, None
    for band, radius, feed, bn_stats in tqdm(wanted, desc=f"asking {run.path.name}", disable=not progress, leave=False):
        cut = "fourier" if band in ("lfc", "hfc") else band[:3]
        if (cut, radius) != at:
            at = cut, radius
            if cut == "x":
                parts = {"x": images}
            elif cut == "svd":
                parts = dict(zip(("svd_low", "svd_high"), svd_split(images, radius, factors=factors)[:2], strict=True))
            else:
                parts = dict(zip(("lfc", "hfc"), split(images, radius), strict=True))
        fed = feed_images(parts[band], feed, add_mean=band == "hfc")
        answer = logits(model, fed, bn_stats=bn_stats, fast=True).argmax(dim=1)
        made[band, radius, feed, bn_stats] = answer.to("cpu", torch.uint8)
    return made


def kept(name: str, folder: Path) -> dict[Condition, Tensor]:
    """What lies in `<home>/predictions` of a run that is not finished yet.

    Args:
        name: the run's folder's, once it is finished.
        folder: where its weights are.
    Returns:
        Answers by condition; none where the file is damaged or of an earlier training's weights.
    """
    try:
        return _parsed(records.read(home() / "predictions" / f"{name}.safetensors", folder))
    except RunError:  # unlike answers that someone published, these are made again at no risk
        return {}


def store(name: str, answers: dict[Condition, Tensor], weights: str) -> None:
    """Keep answers in `<home>/predictions`; those of an earlier training of the same run make way.

    Args:
        name: the run's folder's.
        answers: by condition, (N,) uint8.
        weights: SHA-256 of the run's `weights.safetensors`.
    """
    records.store("predictions", name, {" ".join(map(str, one)): answer for one, answer in answers.items()}, weights)


def _parsed(tensors: dict[str, Tensor]) -> dict[Condition, Tensor]:
    return {(band, int(radius), feed, bn_stats): tensor for name, tensor in tensors.items()
            for band, radius, feed, bn_stats in [name.split(" ")]}  # fmt: skip
