"""Tensors kept beside a run, so that what its network was asked once costs nothing again.

A file `<kind>/<run>.safetensors` is sealed and names the weights it was made with: what another training of the same
run left is not used. Published ones lie in `data`, your own in `<home>`. Kinds: "predictions" (`predictions`) and
"attacks" (`trials`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from hfclib._files import NO_SEAL, data_folder, home, locked, parse_tensors, read_bytes, seal, seal_holds, sha256, write
from hfclib.data.cifar import embedded, to_float
from hfclib.devices import best_device
from hfclib.evaluation import BN_STATS, PAPER_RADII, BnStats, band_conditions, logits
from hfclib.frequency import split, svd_split
from hfclib.runs.store import Run, RunError
from hfclib.training.recipe import RADII
from hfclib.transforms import Feed, feed_images

_LARGEST_RECORD = 2**26  # bytes of a file; the published ones have one to three million


def weights_of(folder: Path) -> str:
    """SHA-256 of the `weights.safetensors` in the folder of a run."""
    return sha256((folder / "weights.safetensors").read_bytes())


def load_record(kind: str, run: Run) -> dict[str, Tensor]:
    """What is stored of a run's own weights; published tensors come before your own, as published runs do.

    Raises:
        RunError: a file is damaged; says which, and what to do.
    """
    found: dict[str, Tensor] = {}
    paths = [folder / kind / f"{run.path.name}.safetensors" for folder in (home(), data_folder())]
    for path in filter(Path.exists, paths):
        found |= read_record(path, weights_of(run.path))
    return found


def read_record(path: Path, weights: str) -> dict[str, Tensor]:
    """The tensors of a file by name; none where there is no file, or one made with weights other than `weights_of`.

    Raises:
        RunError: as `load`.
    """
    if not path.exists():
        return {}
    try:
        content = read_bytes(path, _LARGEST_RECORD)
        tensors, metadata = parse_tensors(content)
        if not seal_holds(content, metadata.get("seal")):
            raise ValueError("it was changed after it was written")
    except (OSError, SafetensorError, ValueError) as error:
        raise RunError(f"{path} is damaged ({error}): delete it, and it will be made again") from error
    return tensors if metadata.get("weights") == weights else {}


def record_or_nothing(path: Path, weights: str) -> dict[str, Tensor]:
    """As `read`, but none of a damaged file: for what can be made again, where it is about to be written."""
    try:
        return read_record(path, weights)
    except RunError:
        return {}


def store_record(kind: str, name: str, tensors: dict[str, Tensor], weights: str) -> None:
    """Keep tensors in `<home>`, beside those that are kept there already of the same weights.

    Those of another training of the same run, and a damaged file, make way. Processes take turns.

    Args:
        kind: "predictions" or "attacks".
        name: the run's folder's.
        tensors: by name, contiguous.
        weights: as `weights_of`.
    """
    path = home() / kind / f"{name}.safetensors"
    with locked(path.with_suffix(".lock"), say=lambda busy: None):  # for moments only
        save_record(path, record_or_nothing(path, weights) | tensors, weights)


def save_record(path: Path, tensors: dict[str, Tensor], weights: str) -> None:
    """Write a file that `read` reads; arguments as in `store`."""
    ordered = dict(sorted(tensors.items()))
    write(path, seal(save(ordered, {"weights": weights, "seal": NO_SEAL})))


# Band, radius, feed and BatchNorm's statistics; ("x", 0, "raw", ...) for whole images.
Condition = tuple[str, int, Feed, BnStats]
_PARTS = {"x": "x", "lfc": "fourier", "hfc": "fourier", "svd_low": "svd", "svd_high": "svd"}  # a part, and its cut


def prediction_conditions(
    batch_norm: bool, radii: Iterable[int] = RADII, other_radii: Iterable[int] = RADII
) -> list[Condition]:
    """The conditions under which a network can be asked.

    Args:
        batch_norm: whether it has BatchNorm, and so two kinds of statistics.
        radii: at which the bands are fed raw, with running statistics.
        other_radii: at which the other feeds and statistics are asked.
    Returns:
        Whole images first, then radius by radius; an LFC with the mean colour is the raw LFC and not listed. The parts
        of a truncated SVD (`svd_split`) come last, at the paper's radii, raw, with running statistics.
    """
    whole = [("x", 0, "raw", bn_stats) for bn_stats in (BN_STATS if batch_norm else BN_STATS[:1])]
    bands = [
        (band, radius, feed, bn_stats)
        for radius, band, feed, bn_stats in band_conditions(radii, batch_norm, other_radii)
    ]
    svd = [(band, r, "raw", "running") for r in PAPER_RADII if r in radii for band in ("svd_low", "svd_high")]
    return whole + bands + svd


def canonical(condition: Condition, batch_norm: bool) -> Condition:
    """The one of several conditions that are the same under which an answer is kept.

    A low part with the mean colour is the raw one, and a network without BatchNorm answers alike with either kind of
    statistics.
    """
    band, radius, feed, bn_stats = condition
    feed = "raw" if band in ("lfc", "svd_low") and feed == "mean" else feed
    return band, radius, feed, bn_stats if batch_norm else "running"


@dataclass(frozen=True)
class Predictions:
    """Answers of one network to test images.

    Attributes:
        answers: by condition, (N,) uint8, the number of the class with the largest logit.
        batch_norm: whether the network has BatchNorm.
    """

    answers: dict[Condition, Tensor]
    batch_norm: bool

    def has(self, band: str, radius: int = 0, feed: Feed = "raw", bn_stats: BnStats = "running") -> bool:
        """Whether that condition was recorded."""
        return canonical((band, radius, feed, bn_stats), self.batch_norm) in self.answers

    def on(self, band: str, radius: int = 0, feed: Feed = "raw", bn_stats: BnStats = "running") -> Tensor:
        """The answers under a condition, (N,) int64.

        Args:
            band: "x" for whole images (radius 0), "lfc", "hfc", "svd_low" or "svd_high".
            radius, feed, bn_stats: as in `evaluation`; of conditions that are the same (`key`), any.
        Raises:
            KeyError: not recorded.
        """
        return self.answers[canonical((band, radius, feed, bn_stats), self.batch_norm)].long()


def predictions_of(
    run: Run, wanted: Iterable[Condition] | None = None, *, also: Iterable[Condition] = (), progress: bool = True
) -> Predictions:
    """What the network of a run answers to the first `final_images` test images.

    Args:
        run: a stored run.
        wanted: conditions; None is all of `conditions`, of a network wider than 16 channels, which takes minutes a
            condition, the feeds other than raw and the batch's statistics only at the paper's radii.
        also: conditions beside those.
        progress: show a bar while something is computed.
    Returns:
        Stored answers where there are; the others are computed, with bfloat16 arithmetic where the device has it, and
        stored in `<home>/predictions`.
    Raises:
        RunError: a stored file is damaged.
        ValueError: no such band.
    """
    batch_norm = run.recipe.norm == "batch"
    if wanted is None:
        narrow = run.recipe.arch == "resnet32" or run.recipe.width <= 16
        wanted = prediction_conditions(batch_norm, other_radii=RADII if narrow else PAPER_RADII)
    asked = list(dict.fromkeys(canonical(condition, batch_norm) for condition in [*wanted, *also]))
    for band, *_ in asked:
        if band not in _PARTS:
            raise ValueError(f"expected band, one of {', '.join(_PARTS)}, got {band!r}")
    answers = _parsed(load_record("predictions", run))
    missing = [condition for condition in asked if condition not in answers]
    if missing:
        made = _compute(run, missing, progress=progress)
        store_predictions(run.path.name, made, weights_of(run.path))
        answers |= made
    return Predictions({condition: answers[condition] for condition in asked}, batch_norm)


def _compute(run: Run, wanted: list[Condition], *, progress: bool) -> dict[Condition, Tensor]:
    images = to_float(embedded("test")[0][: run.recipe.final_images])
    model = run.model().to(best_device())
    factors = (
        torch.linalg.svd(images, full_matrices=False) if any(band.startswith("svd") for band, *_ in wanted) else None
    )
    made, at = {}, None
    for band, radius, feed, bn_stats in tqdm(wanted, desc=f"asking {run.path.name}", disable=not progress, leave=False):
        cut = _PARTS[band]
        if (cut, radius) != at:
            at = cut, radius
            if cut == "x":
                parts = {"x": images}
            elif cut == "svd":
                parts = dict(zip(("svd_low", "svd_high"), svd_split(images, radius, factors=factors)[:2], strict=True))
            else:
                parts = dict(zip(("lfc", "hfc"), split(images, radius), strict=True))
        fed = feed_images(parts[band], feed, add_mean=band in ("hfc", "svd_high"))
        answer = logits(model, fed, bn_stats=bn_stats, amp=True).argmax(dim=1)
        made[band, radius, feed, bn_stats] = answer.to("cpu", torch.uint8)
    return made


def store_predictions(name: str, answers: dict[Condition, Tensor], weights: str) -> None:
    """Keep answers in `<home>/predictions`, as `store_record` does.

    Args:
        name: the run's folder's.
        answers: by condition, (N,) uint8.
        weights: SHA-256 of the run's `weights.safetensors`.
    """
    store_record("predictions", name, _named(answers), weights)


def kept_predictions(path: Path, weights: str) -> dict[Condition, Tensor]:
    """The answers in a file, by condition, as in `record_or_nothing`."""
    return _parsed(record_or_nothing(path, weights))


def save_predictions(path: Path, answers: dict[Condition, Tensor], weights: str) -> None:
    """Write answers to a file that `kept` reads; arguments as in `store`."""
    save_record(path, _named(answers), weights)


def _named(answers: dict[Condition, Tensor]) -> dict[str, Tensor]:
    return {" ".join(map(str, one)): answer for one, answer in answers.items()}


def _parsed(tensors: dict[str, Tensor]) -> dict[Condition, Tensor]:
    return {
        (band, int(radius), feed, bn_stats): tensor
        for name, tensor in tensors.items()
        for band, radius, feed, bn_stats in [name.split(" ")]
    }
