"""The run store: load a stored run, or train it; resume, provenance, and one training of a run at a time.

A run is a folder `<recipe>-<seed>-<hash>` of four files: `run.json` (recipe, seed, provenance and the checksums of the
others), `curves.csv` (accuracy after each epoch), `final.csv` (accuracy after training) and `weights.safetensors`
(parameters as float16). Runs are published with the package in `data/runs`; your own go to `<home>/runs`. A training
under way lives in `<run>.partial`, whose checkpoint is replaced after every epoch, and holds `<run>.lock`. What the
trained network answers to the bands is kept radius by radius, so that a stop loses little of that either.
"""

import platform
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import safetensors.torch
import torch
from torch import nn
from tqdm import tqdm

import hfclib
from hfclib._files import all_finite, home, locked, sha256, write
from hfclib.data.cifar import embedded, to_float
from hfclib.devices import best_device, device_name, gains_from_bf16
from hfclib.evaluation import CURVE_COLUMNS, curve_rows, training_band_rows
from hfclib.runs.predictions import kept_predictions, save_predictions, store_predictions, weights_of
from hfclib.runs.store import Run, _fill, description, load, put_in_place, stored_weights
from hfclib.training.adversarial import final_rows
from hfclib.training.checkpoint import restore_checkpoint, save_checkpoint
from hfclib.training.loop import Progress, TrainingError, fit, measured_parts, training_set
from hfclib.training.recipe import RADII, Recipe

TRAIN_IMAGES_AT_END = 5_000  # the embedded ones, so that anyone can recompute the final training accuracy
ANSWERS = "answers.safetensors"  # of a trained network that is being measured


def _final_rows(recipe: Recipe, model: nn.Module, partial: Path, *, progress: bool) -> tuple[list[dict], dict]:
    """The rows of `final.csv`, and the answers behind those of the bands, kept in `partial` radius by radius."""
    images, labels = training_set(recipe, progress=progress)
    if len(labels) > TRAIN_IMAGES_AT_END:
        # Shuffled labels belong to places in the whole set, which the embedded images don't have.
        part = slice(TRAIN_IMAGES_AT_END)
        images, labels = embedded("train") if recipe.labels == "natural" else (images[part], labels[part])
    test_images, test_labels = (tensor[: recipe.final_images] for tensor in embedded("test"))
    parts = measured_parts(recipe, (images, labels), (test_images, test_labels))
    test = to_float(test_images), test_labels
    rows = curve_rows(model, parts, test, (), exact=True)
    if recipe.train_bands:
        rows += training_band_rows(model, to_float(images), labels)
    path, weights = partial / ANSWERS, weights_of(partial)
    kept = kept_predictions(path, weights)
    for radius in tqdm(RADII, desc=f"measuring {recipe.name}", unit=" radii", disable=not progress):
        before = len(kept)
        rows += curve_rows(model, (), test, [radius], kept=kept)
        if len(kept) > before:
            save_predictions(path, kept, weights)
    return rows + final_rows(model, *test, recipe), kept


def train_run(
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device | None = None,
    store: Path | None = None,
    progress: bool = True,
    tell: Callable[[str], None] | None = None,
) -> Run:
    """Train a recipe, or go on with its training, and store the run.

    Args:
        recipe: what to train.
        seed: 0 or more.
        device: None finds the best.
        store: folder of runs; None is `<home>/runs`.
        progress: show a bar.
        tell: is given a line after every epoch, and before waiting for another process that trains the same run.
    Returns:
        The stored run. Killed at any moment and called again, it goes on after the last finished epoch, or the last
        radius measured, and, on a CPU, ends in the same weights bit for bit. Where another process trains the run
        already, the other's result, after a wait.
    Raises:
        ValueError: a bad seed.
        CheckpointError: a damaged checkpoint.
        OSError: the disk is full; the last checkpoint is whole.
        TrainingError, DataError: as `fit`.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"expected seed, a whole number of at least 0, got {seed!r}")
    final = (store or home() / "runs") / recipe.run_name(seed)
    say = tell or (lambda line: print(line, flush=True) if progress else None)
    lock = locked(final.with_name(final.name + ".lock"), say=say)
    with lock as waited:
        if waited and final.is_dir():
            return load(final)
        return _train_run(recipe, seed, device or best_device(), final, progress, tell)


def _train_run(recipe, seed, device, final: Path, progress, tell) -> Run:
    partial = final.with_name(final.name + ".partial")
    checkpoint, code = partial / "checkpoint.safetensors", code_commit()
    partial.mkdir(parents=True, exist_ok=True)

    def restore(*objects) -> Progress:
        state = restore_checkpoint(checkpoint, *objects)
        state.commits = list(dict.fromkeys([*state.commits, code]))
        return state

    def keep(model, optimizer, scheduler, state: Progress) -> None:
        save_checkpoint(checkpoint, model, optimizer, scheduler, state)
        if tell:
            tell(_after_epoch(recipe, seed, state))

    model, state = fit(recipe, seed=seed, device=device, restore=restore, progress=progress, checkpoint=keep)
    weights = stored_weights(model)
    if not all_finite(weights):  # a run that would be refused on load
        raise TrainingError(
            f"{recipe.name}, seed {seed}, ended in weights too large to store: try a smaller learning_rate"
        )
    _fill(model, weights)
    checksums: dict[str, str] = {}

    def put(name: str, content: bytes) -> None:
        checksums[name] = sha256(content)
        write(partial / name, content)

    put("weights.safetensors", safetensors.torch.save(weights, {"run": final.name}))  # one entry: their order varies
    measured, answers = _final_rows(recipe, model, partial, progress=progress)
    tables = {"curves.csv": (["epoch", *CURVE_COLUMNS], state.rows), "final.csv": (CURVE_COLUMNS, measured)}
    for name, (columns, rows) in tables.items():
        text = pd.DataFrame(rows)[columns].to_csv(index=False, float_format="%.6g", lineterminator="\n")
        put(name, text.encode())
    put("run.json", description(recipe, seed, training_provenance(state, device), checksums))
    store_predictions(final.name, answers, checksums["weights.safetensors"])
    put_in_place(partial, final)
    for name in (ANSWERS, checkpoint.name):  # last: a training killed before this point repeats its final steps only
        (final / name).unlink(missing_ok=True)
    return load(final)


def _after_epoch(recipe: Recipe, seed: int, state: Progress) -> str:
    # After the last epoch the same is measured as after each, on more images.
    measurements = recipe.epochs - state.epoch + recipe.final_images / recipe.eval_images
    left = state.train_seconds * (recipe.whole_epochs(recipe.epochs) / recipe.whole_epochs(state.epoch) - 1)
    left += state.eval_seconds / state.epoch * measurements
    return f"{recipe.name}, seed {seed}: epoch {state.epoch} of {recipe.epochs}, about {left / 60:.1f} minutes left"


def code_commit() -> str:
    """The git commit of the code that runs, with "-dirty" if hfclib was edited; "none" outside a checkout."""
    folder = Path(hfclib.__file__).parent
    try:
        _, head, changes = (
            subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
            # The first fails where the package lies in somebody else's checkout, as in a virtual environment there.
            for words in (
                ["ls-files", "--error-unmatch", "__init__.py"],
                ["rev-parse", "HEAD"],
                ["status", "--porcelain", "--", "."],
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return head + ("-dirty" if changes else "")


def training_provenance(state: Progress, device: torch.device) -> dict:
    """The provenance of a run that was trained just now, as plain values for JSON.

    Args:
        state: of the finished training.
        device: where it trained.
    """
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "commits": state.commits,
        "train_seconds": round(state.train_seconds),
        "eval_seconds": round(state.eval_seconds),
        "device": device_name(device),
        "precision": "bfloat16 autocast" if gains_from_bf16(device) else "float32",
        "versions": {"hfclib": hfclib.__version__, "torch": torch.__version__, "python": platform.python_version()},
    }
