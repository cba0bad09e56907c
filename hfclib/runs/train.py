"""Training a run and storing it: resumed after a stop, with its provenance, by one process at a time.

A training under way is in `<run>.partial`, whose checkpoint is replaced after every epoch, and holds `<run>.lock`. The
predictions of the trained network on the bands are kept radius by radius, so that a stop there loses little too.
"""

import logging
from pathlib import Path

import pandas as pd
import safetensors.torch
import torch
from torch import Tensor, nn
from tqdm import tqdm

from hfclib._files import home, locked, make_writable, sha256, write
from hfclib.batching import first_logits
from hfclib.conditions import Condition
from hfclib.data import CLASSES, DATA_SETS, to_float
from hfclib.devices import best_device
from hfclib.metrics import CURVE_COLUMNS, curve_rows, training_band_rows
from hfclib.models import find_network
from hfclib.runs.images import held_out_set, training_set
from hfclib.runs.predictions import add_to_record, by_condition, by_name, kept_record, store_record, weights_of
from hfclib.runs.provenance import code_commit, training_provenance
from hfclib.runs.store import (
    WEIGHTS,
    Run,
    answers,
    check_answers,
    description,
    load,
    put_in_place,
    stored_at,
    stored_weights,
)
from hfclib.training.adversarial import robust_rows
from hfclib.training.batches import pixels
from hfclib.training.checkpoint import restore_checkpoint, save_checkpoint
from hfclib.training.loop import Progress, TrainingError, fit_own, initial_model, measured_parts
from hfclib.training.recipe import Recipe

TRAIN_IMAGES_AT_END = 5_000  # the embedded ones, so that anyone can recompute the final training accuracy
MEASURED = "answers.safetensors"  # predictions of a trained network that is being measured
logger = logging.getLogger(__name__)


def _final_rows(recipe: Recipe, model: nn.Module, train, test, partial: Path, *, progress: bool) -> list[dict]:
    """The rows of `final.csv`; the predictions behind those of the bands are kept in `partial` radius by radius."""
    if len(train[1]) > TRAIN_IMAGES_AT_END:
        # Shuffled labels belong to positions in the whole set, which the embedded images don't have.
        natural, few = recipe.data.labels == "natural", recipe.with_(train_images=TRAIN_IMAGES_AT_END)
        train = training_set(few) if natural else tuple(tensor[:TRAIN_IMAGES_AT_END] for tensor in train)
    test = pixels(test[0][: recipe.final_images]), test[1][: recipe.final_images]
    source = DATA_SETS[recipe.data.dataset]
    parts, colour = measured_parts(recipe, train, test), source.mean
    if recipe.data.planted:
        clean = to_float(source.embedded("test")[0][: len(test[1])])
        parts = {**parts, ("clean", Condition("x")): (clean, test[1])}
    rows = curve_rows(model, parts, test, (), colour=colour, exact=True)
    if recipe.train_bands:
        rows += training_band_rows(model, pixels(train[0]), train[1])
    path, weights = partial / MEASURED, weights_of(partial)
    kept = by_condition(kept_record(path, weights))
    for radius in tqdm(recipe.radii, desc=f"measuring {recipe.name}", unit=" radii", disable=not progress):
        before = len(kept)
        rows += curve_rows(model, {}, test, [radius], kept=kept, colour=colour)
        if len(kept) > before:
            add_to_record(path, by_name(kept), weights)
    return rows + robust_rows(model, *test, recipe, after_training=True)


def train_run(
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device | str | None = None,
    store: str | Path | None = None,
    progress: bool = True,
) -> Run:
    """Train a recipe, or go on with its training, and store the run.

    Killed at any moment and called again, it goes on after the last finished epoch, or the last radius measured, and
    on a CPU with as many threads ends in the same weights bit for bit. Where another process trains the run, it waits
    and takes that result.

    Args:
        seed: 0 or more.
        device, store: None finds the best device; None is the folder `<home>/runs`.
        progress: show a bar; without it a line is logged after every epoch.
    Raises:
        ValueError, CheckpointError, RunError: a bad seed; a damaged checkpoint, or one of another network of this name.
        TrainingError, DataError, OSError: as `fit`; no training images; a full disk, with the last checkpoint whole.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"expected seed, a whole number of at least 0, got {seed!r}")
    device = torch.device(device) if device else best_device()
    final = Path(store or home() / "runs") / recipe.run_name(seed)
    before = stored_at(final)
    with locked(final.with_name(final.name + ".lock"), say=logger.warning) as waited:
        if waited and stored_at(final) not in (None, before):
            return load(final)
        return _train_run(recipe, seed, device, final, progress)


def _train_run(recipe: Recipe, seed: int, device: torch.device, final: Path, progress: bool) -> Run:
    partial = final.with_name(final.name + ".partial")
    checkpoint, code = partial / "checkpoint.safetensors", code_commit()
    is_own = find_network(recipe.model.network).is_own
    for folder in (partial, home() / "predictions"):
        make_writable(folder)

    def restore(*objects) -> Progress:
        state = restore_checkpoint(checkpoint, *objects)
        if state.epoch:
            if state.answers:
                check_answers(objects[0], recipe, state.answers, checkpoint)
            other = "".join(f", so far by other code ({commit})" for commit in state.commits[-1:] if commit != code)
            logger.info("%s, seed %d, goes on after epoch %d%s", recipe.name, seed, state.epoch, other)
        state.commits = list(dict.fromkeys([*state.commits, code]))
        return state

    def keep(model, optimizer, scheduler, state: Progress) -> None:
        state.answers = answers(model, recipe) if is_own else []
        save_checkpoint(checkpoint, model, optimizer, scheduler, state)
        if not progress:
            logger.info(_after_epoch(recipe, seed, state))

    train, test = training_set(recipe, progress=progress), held_out_set(recipe)
    model = initial_model(recipe, seed).to(device)
    _check_network(model, pixels(test[0][:2]), recipe)
    options: dict = {"colour": DATA_SETS[recipe.data.dataset].mean, "progress": progress}
    state = fit_own(model, train, test, recipe, seed=seed, restore=restore, checkpoint=keep, **options)
    weights = stored_weights(model)
    if not all(tensor.isfinite().all() for tensor in weights.values() if tensor.dtype == torch.half):
        raise TrainingError(
            f"{recipe.name}, seed {seed}, ended in weights too large to store: try a smaller learning_rate"
        )
    model.load_state_dict(weights)  # what is measured is what is stored
    contents = {WEIGHTS: safetensors.torch.save(weights, {"run": final.name})}
    write(partial / WEIGHTS, contents[WEIGHTS])
    measured = _final_rows(recipe, model, train, test, partial, progress=progress)
    tables = {"curves.csv": (["epoch", *CURVE_COLUMNS], state.rows), "final.csv": (CURVE_COLUMNS, measured)}
    for name, (columns, rows) in tables.items():
        text = pd.DataFrame(rows)[columns].to_csv(index=False, float_format="%.6g", lineterminator="\n")
        contents[name] = text.encode()
        write(partial / name, contents[name])
    checksums = {name: sha256(content) for name, content in contents.items()}
    provenance = training_provenance(state, device) | ({"answers": answers(model, recipe)} if is_own else {})
    write(partial / "run.json", description(recipe, seed, provenance, checksums))
    of_weights = checksums[WEIGHTS]
    store_record("predictions", final.name, kept_record(partial / MEASURED, of_weights), of_weights)
    put_in_place(partial, final)
    for name in (MEASURED, checkpoint.name):  # last: a training killed before this point repeats its final steps only
        (final / name).unlink(missing_ok=True)
    return load(final)


def _check_network(model: nn.Module, images: Tensor, recipe: Recipe) -> None:
    """Refuse other logits than one per class, as predictions are stored in eight bits, and a state not of tensors."""
    name = recipe.model.network
    if (count := first_logits(model, images).shape[1]) != len(CLASSES):
        raise ValueError(f"expected {len(CLASSES)} logits from {name}, got {count}")
    if others := [key for key, value in model.state_dict().items() if not isinstance(value, Tensor)]:
        raise ValueError(f"expected a state of tensors only from {name}, got {', '.join(others)}, which can't be kept")


def _after_epoch(recipe: Recipe, seed: int, state: Progress) -> str:
    # After the last epoch the same is measured as after each, on more images.
    measurements = recipe.epochs - state.epoch + recipe.final_images / recipe.eval_images
    left = state.train_seconds * (recipe.whole_epochs(recipe.epochs) / recipe.whole_epochs(state.epoch) - 1)
    left += state.eval_seconds / state.epoch * measurements
    return f"{recipe.name}, seed {seed}: epoch {state.epoch} of {recipe.epochs}, about {left / 60:.1f} minutes left"
