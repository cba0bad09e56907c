"""Predictions of stored networks, kept beside the run so that they are computed once.

A record is a file `<kind>/<run>.safetensors` of tensors that names the weights it was made with and the
EVALUATION_VERSION of the code that made it; a record of others is not used, and is replaced. Published records are in
`data`, your own in `<home>`. Kinds say the precision that was asked for: "predictions" are in bfloat16 where a device
gains from it, "float32" are not; "attacks" are the trials of the chapter on defenses.
"""

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from hfclib._files import data_folder, home, homes, load_tensors, locked, make_writable, save_tensors, sha256
from hfclib.batching import logits
from hfclib.conditions import BN_STATS, PAPER_RADII, BnStats, Condition, band_conditions, iter_inputs
from hfclib.data import DATA_SETS
from hfclib.devices import best_device
from hfclib.runs.images import held_out_set
from hfclib.runs.store import WEIGHTS, Run, RunError, is_published
from hfclib.training.recipe import RADII
from hfclib.transforms import Feed

# Of what `hfclib.metrics` and `hfclib.moments` compute. Raise it when a change of what a network is fed, or of how
# it is asked, changes results: what was stored before is then not used. `tests/runs/test_evaluation_version.py` has
# results of this version.
EVALUATION_VERSION = 1
logger = logging.getLogger(__name__)


def same_version(stored: int | str | None) -> bool:
    """Whether something was stored by this EVALUATION_VERSION; files without a version are of the first."""
    return int(stored or 1) == EVALUATION_VERSION


def weights_of(folder: Path) -> str:
    """SHA-256 of the weights in the folder of a run, from its `run.json` where they are not kept."""
    if (folder / WEIGHTS).exists():
        return sha256((folder / WEIGHTS).read_bytes())
    return json.loads((folder / "run.json").read_bytes())["sha256"][WEIGHTS]


def load_record(kind: str, run: Run, *, beside: bool = False) -> dict[str, Tensor]:
    """What is stored of a run's own weights; published tensors take precedence. Raises as `read_record`.

    Args:
        kind, run: as in the module's text.
        beside: of a published run, only what is published too: published numbers do not hang on what was computed here.
    """
    weights, name = weights_of(run.path), f"{run.path.name}.safetensors"
    # Earlier places come last, so that their tensors take precedence.
    places = (data_folder(),) if beside and is_published(run.path) else (*reversed(homes()), data_folder())
    return {tensor: value for place in places for tensor, value in read_record(place / kind / name, weights).items()}


def read_record(path: Path, weights: str) -> dict[str, Tensor]:
    """The tensors of a record by name; none where there is no file, or one of other weights or of another version.

    Args:
        path: of the file.
        weights: from `weights_of`.
    Raises:
        RunError: the file is damaged; says which, and what to do.
    """
    try:
        tensors, metadata = load_tensors(path) if path.exists() else ({}, {})
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is damaged ({error}): delete it, and it will be made again") from error
    return tensors if metadata.get("weights") == weights and same_version(metadata.get("evaluation")) else {}


def kept_record(path: Path, weights: str) -> dict[str, Tensor]:
    """As `read_record`, but nothing of a damaged file: for what can be made again."""
    try:
        return read_record(path, weights)
    except RunError:
        return {}


def add_to_record(path: Path, tensors: dict[str, Tensor], weights: str) -> None:
    """Add tensors to a record; one that is damaged, of other weights or of another version is replaced."""
    metadata = {"weights": weights, "evaluation": str(EVALUATION_VERSION)}
    save_tensors(path, kept_record(path, weights) | tensors, metadata)


def store_record(kind: str, name: str, tensors: dict[str, Tensor], weights: str) -> None:
    """Add tensors to the record of the run in the folder `name`, in `<home>`; processes take turns."""
    path = home() / kind / f"{name}.safetensors"
    with locked(path.with_suffix(".lock"), say=logger.debug):  # held for moments only
        add_to_record(path, tensors, weights)


def prediction_conditions(
    batch_norm: bool, radii: Iterable[int] = RADII, other_radii: Iterable[int] = RADII
) -> list[Condition]:
    """The conditions under which a network's predictions are published.

    Args:
        radii: at which the bands are fed raw, with running averages.
        other_radii: at which the other feeds, and with `batch_norm` the other statistics, are used.
    Returns:
        Whole images first, then radius by radius, canonical conditions only. The parts of a truncated SVD
        (`svd_split`) come last, at the paper's radii, raw, with running averages.
    """
    whole = [Condition("x", bn_stats=bn_stats) for bn_stats in (BN_STATS if batch_norm else BN_STATS[:1])]
    bands = list(band_conditions(radii, batch_norm, other_radii))
    svd = [Condition(band, radius) for radius in PAPER_RADII if radius in radii for band in ("svd_low", "svd_high")]
    return whole + bands + svd


@dataclass(frozen=True)
class Predictions:
    """Predictions of one network for test images.

    Attributes:
        classes: by canonical condition, (N,) uint8, the class with the largest logit.
        batch_norm: whether the network has BatchNorm.
    """

    classes: dict[Condition, Tensor]
    batch_norm: bool

    def has(self, band: str, radius: int | None = None, feed: Feed = "raw", bn_stats: BnStats = "running") -> bool:
        """Whether a condition, or an equivalent one, was recorded; arguments as those of `Condition`."""
        return Condition(band, radius, feed, bn_stats).canonical(self.batch_norm) in self.classes

    def on(self, band: str, radius: int | None = None, feed: Feed = "raw", bn_stats: BnStats = "running") -> Tensor:
        """The predictions under a condition, (N,) int64; KeyError if it is not recorded; arguments as in `has`."""
        return self.classes[Condition(band, radius, feed, bn_stats).canonical(self.batch_norm)].long()


def predictions_of(
    run: Run,
    wanted: Iterable[Condition] | None = None,
    *,
    also: Iterable[Condition] = (),
    exact: bool = False,
    progress: bool = True,
) -> Predictions:
    """What the network of a run predicts for the first `final_images` test images.

    Stored predictions are loaded; others are computed, in bfloat16 where the device gains from it, and stored in
    `<home>/predictions`.

    Args:
        wanted: conditions; None is all of `prediction_conditions`. For a network wider than 16 channels, which takes
            minutes per condition, other feeds and statistics are then used at the paper's radii only.
        also: conditions beside those.
        exact: in float32, stored in `<home>/float32`: rounding to bfloat16 changes the prediction for one to four
            images of a thousand, which matters where two nearly equal inputs are compared.
        progress: show a bar while something is computed.
    Raises:
        RunError: a stored file is damaged.
    """
    batch_norm = run.batch_norm
    if wanted is None:
        model = run.recipe.model
        narrow = model.network == "resnet32" or model.width <= 16
        radii = run.recipe.radii
        wanted = prediction_conditions(batch_norm, radii, radii if narrow else PAPER_RADII)
    conditions = list(dict.fromkeys(Condition(*condition).canonical(batch_norm) for condition in [*wanted, *also]))
    kind = "float32" if exact else "predictions"
    classes = by_condition(load_record(kind, run))
    if missing := [condition for condition in conditions if condition not in classes]:
        make_writable(home() / kind)
        weights = weights_of(run.path)  # not after the work, when the run may have been trained again
        # Stored radius by radius: a stop loses those of one.
        for _, made in groupby(_compute(run, missing, amp=not exact, progress=progress), lambda pair: pair[0].radius):
            some = dict(made)
            store_record(kind, run.path.name, by_name(some), weights)
            classes |= some
    return Predictions({condition: classes[condition] for condition in conditions}, batch_norm)


def _compute(run: Run, wanted: list[Condition], *, amp: bool, progress: bool) -> Iterator[tuple[Condition, Tensor]]:
    images, colour = held_out_set(run.recipe)[0][: run.recipe.final_images], DATA_SETS[run.recipe.data.dataset].mean
    model = run.model().to(best_device())
    bar = tqdm(wanted, desc=f"predictions of {run.path.name}", disable=not progress, leave=False)
    for condition, fed in zip(bar, iter_inputs(images, wanted, colour), strict=True):
        predicted = logits(model, fed, bn_stats=condition.bn_stats, amp=amp).argmax(dim=1)
        yield condition, predicted.to("cpu", torch.uint8)


def by_name(classes: dict[Condition, Tensor]) -> dict[str, Tensor]:
    """Predictions under the names that they have in a record, such as "hfc 8 raw running" or "x 0 raw running"."""
    return {
        f"{band} {radius or 0:.17g} {' '.join(how)}": predicted for (band, radius, *how), predicted in classes.items()
    }


def by_condition(tensors: dict[str, Tensor]) -> dict[Condition, Tensor]:
    """The inverse of `by_name`."""
    parts: dict[str, list[Any]] = {name: name.split(" ") for name in tensors}
    return {
        Condition(band, None if band == "x" else json.loads(radius), *how): tensors[name]
        for name, (band, radius, *how) in parts.items()
    }
