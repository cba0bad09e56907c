"""The run store: load a stored run, or train it; resume, provenance, and one training of a run at a time.

A run is a folder `<recipe>-<seed>-<hash>` of four files: `run.json` (recipe, seed, provenance and the checksums of the
others), `curves.csv` (accuracy after each epoch), `final.csv` (accuracy after training) and `weights.safetensors`
(parameters as float16). Runs are published with the package in `data/runs`; your own go to `<home>/runs`. A training
under way lives in `<run>.partial`, whose checkpoint is replaced after every epoch, and holds `<run>.lock`. What the
trained network answers to the bands is kept radius by radius, so that a stop loses little of that either.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import safetensors.torch
import torch
from torch import Tensor, nn
from tqdm import tqdm

from hfclib import checkpoints, distributed, predictions, records
from hfclib.adversarial import final_rows
from hfclib.data import data_folder, embedded, home, to_float
from hfclib.evaluation import CURVE_COLUMNS, curve_rows, training_band_rows
from hfclib.files import finite, locked, sha256, write
from hfclib.provenance import commit, of_training
from hfclib.recipes import RADII, Recipe
from hfclib.training import Progress, TrainingError, fit, measured_parts, training_set
from hfclib.verification import FILES, description, read_description, read_table, read_weights
from hfclib.verification import RunError as RunError

TRAIN_IMAGES_AT_END = 5_000  # the embedded ones, so that anyone can recompute the final training accuracy
ANSWERS = "answers.safetensors"  # of a trained network that is being measured


@dataclass(frozen=True)
class Run:
    """A stored run.

    Attributes:
        recipe: how it was trained.
        seed: with which seed.
        curves: a row a measurement, columns "epoch" and CURVE_COLUMNS: epochs 1 to recipe.epochs, on the first
            recipe.eval_images of each set.
        final: a row a measurement, CURVE_COLUMNS: after training, from the weights as stored, on the first
            recipe.final_images of the test set and up to 5,000 training images. Adversarial training adds rows of
            whole test images with feed "pgd10" to the curves and "pgd20" to the end: see `adversarial`.
            `Recipe.train_bands` adds rows of the bands of training images to both.
        provenance: versions, device, commits, seconds.
        path: its folder.
    """

    recipe: Recipe
    seed: int
    curves: pd.DataFrame
    final: pd.DataFrame
    provenance: dict
    path: Path

    def model(self) -> nn.Module:
        """The trained network, in float32 on the CPU, in evaluation mode.

        Raises:
            RunError: the weights file is damaged.
        """
        model = self.recipe.build()
        _fill(model, read_weights(self.path / "weights.safetensors", self.recipe))
        return model.to(memory_format=torch.channels_last).eval()

    def test_accuracy(self) -> float:
        """Accuracy on whole test images after training, with running statistics, in [0, 1]."""
        rows = self.final.query("split == 'test' and band == 'x' and feed == 'raw' and bn_stats == 'running'")
        return float(rows["accuracy"].item())


def stored_weights(model: nn.Module) -> dict[str, Tensor]:
    """The model's state as a run stores it: parameters in float16, buffers (BatchNorm's averages) as they are."""
    parameters = dict(model.named_parameters())
    return {name: (tensor.half() if name in parameters else tensor).cpu().contiguous()
            for name, tensor in model.state_dict().items()}  # fmt: skip


def _fill(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Give the model weights as a run stores them, in float32."""
    model.load_state_dict({name: tensor.float() if tensor.is_floating_point() else tensor
                           for name, tensor in weights.items()})  # fmt: skip


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
    path, weights = partial / ANSWERS, records.weights_of(partial)
    kept = predictions.kept(path, weights)
    for radius in tqdm(RADII, desc=f"measuring {recipe.name}", unit=" radii", disable=not progress):
        before = len(kept)
        rows += curve_rows(model, (), test, [radius], kept=kept)
        if len(kept) > before:
            predictions.save_to(path, kept, weights)
    return rows + final_rows(model, *test, recipe), kept


def train(
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device | None = None,
    store: Path | None = None,
    progress: bool = True,
    tell: Callable[[str], None] | None = None,
) -> Run | None:
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
        already, the other's result, after a wait. Of the processes that `torchrun` started only the first stores the
        run: None in the others.
    Raises:
        ValueError: a bad seed.
        CheckpointError: a damaged checkpoint.
        OSError: the disk is full; the last checkpoint is whole.
        TimeoutError: another process trains the run, and this one can't wait, being one of several of `torchrun`.
        TrainingError, DataError: as `training.fit`.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"expected seed, a whole number of at least 0, got {seed!r}")
    team = distributed.team()
    final = (store or home() / "runs") / recipe.run_name(seed)
    say = tell or (lambda line: print(line, flush=True) if progress else None)
    lock = locked(final.with_name(final.name + ".lock"), wait=team.world == 1, say=say)
    with lock if team.first else nullcontext() as waited:
        if waited and final.is_dir():
            return load(final)
        return _train(recipe, seed, device or team.device(), final, progress, tell, team)


def _train(recipe, seed, device, final: Path, progress, tell, team) -> Run | None:
    partial = final.with_name(final.name + ".partial")
    checkpoint, code = partial / "checkpoint.safetensors", commit()
    if team.first:
        partial.mkdir(parents=True, exist_ok=True)

    def restore(*objects) -> Progress:
        content = checkpoints.read(checkpoint, objects[0]) if team.first else b""
        state = checkpoints.restore(checkpoint, *objects, content=team.share(content))
        state.commits = list(dict.fromkeys([*state.commits, code]))
        return state

    def keep(model, optimizer, scheduler, state: Progress) -> None:
        if team.first:
            checkpoints.save(checkpoint, model, optimizer, scheduler, state)
            if tell:
                tell(_after_epoch(recipe, seed, state))

    model, state = fit(recipe, seed=seed, device=device, restore=restore, progress=progress and team.first,
                       checkpoint=keep, team=team)  # fmt: skip
    if not team.first:
        return None
    weights = stored_weights(model)
    if not finite(weights):  # a run that would be refused on load
        raise TrainingError(f"{recipe.name}, seed {seed}, ended in weights too large to store: "
                            "try a smaller learning_rate")  # fmt: skip
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
    put("run.json", description(recipe, seed, of_training(state, device, team.world), checksums))
    predictions.store(final.name, answers, checksums["weights.safetensors"])
    move(partial, final)
    for name in (ANSWERS, checkpoint.name):  # last: a training killed before this point repeats its final steps only
        (final / name).unlink(missing_ok=True)
    return load(final)


def _after_epoch(recipe: Recipe, seed: int, state: Progress) -> str:
    # After the last epoch the same is measured as after each, on more images.
    measurements = recipe.epochs - state.epoch + recipe.final_images / recipe.eval_images
    left = state.train_seconds * (recipe.whole_epochs(recipe.epochs) / recipe.whole_epochs(state.epoch) - 1)
    left += state.eval_seconds / state.epoch * measurements
    return f"{recipe.name}, seed {seed}: epoch {state.epoch} of {recipe.epochs}, about {left / 60:.1f} minutes left"


def move(whole: Path, final: Path) -> None:
    """Put a whole run where it belongs; an older one makes way only now."""
    old = final.with_name(final.name + ".old.partial")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        os.replace(final, old)
    os.replace(whole, final)
    shutil.rmtree(old, ignore_errors=True)


def load(path: Path) -> Run:
    """Load and verify a stored run: every file of it.

    Raises:
        RunError: naming the file that is missing, damaged or of another format, and what to do.
    """
    found = read_description(path)
    curves, final = (read_table(path / name, found.checksums[name], found.recipe) for name in FILES[:2])
    read_weights(path / FILES[2], found.recipe, found.checksums[FILES[2]])
    return Run(found.recipe, found.seed, curves, final, found.provenance, path)


def folders() -> list[Path]:
    """Where runs are looked for: the published ones, then your own."""
    return [data_folder() / "runs", home() / "runs"]


def find(recipe: Recipe, seed: int, store: Path | None = None) -> Run | None:
    """The stored run of a recipe and seed, in `store` or else in `folders()`; None if it was never trained.

    Raises:
        RunError: it is there but damaged.
    """
    for folder in [store] if store else folders():
        if (folder / recipe.run_name(seed)).is_dir():
            return load(folder / recipe.run_name(seed))
    return None
