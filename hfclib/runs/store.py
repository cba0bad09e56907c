"""The run store: what a run is, how it is found, loaded and checked, and what the store holds.

A run is a folder `<recipe>-<seed>-<hash>` of four files: `run.json` (recipe, seed, provenance and the SHA-256 of the
others), `curves.csv` (accuracy after each epoch), `final.csv` (accuracy after training) and `weights.safetensors`
(parameters as float16). Runs are published with the package in `data/runs`; your own go to `<home>/runs`. A file that
is missing, damaged or edited is refused by name, with what to do.
"""

import contextlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import safetensors.torch
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from torch import Tensor, nn

from hfclib._files import all_finite, data_folder, home, sha256
from hfclib.evaluation import CURVE_COLUMNS
from hfclib.training.checkpoint import CheckpointError, epochs_done
from hfclib.training.recipe import Recipe

FORMAT_VERSION = 2
FILES = ("curves.csv", "final.csv", "weights.safetensors")  # beside run.json, which holds their checksums
ADVICE = "delete the folder and train the run again, or restore the published one"
_WHOLE = "split == 'test' and band == 'x' and feed == 'raw' and bn_stats == 'running'"


class RunError(RuntimeError):
    """A stored run that is missing or damaged."""


@dataclass(frozen=True)
class Run:
    """A stored run.

    Attributes:
        recipe: how it was trained.
        seed: with which seed.
        curves: one row per measurement, columns "epoch" and CURVE_COLUMNS: epochs 1 to recipe.epochs, on the first
            recipe.eval_images of each set.
        final: one row per measurement, CURVE_COLUMNS: after training, from the weights as stored, on the first
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
        fill_model(model, read_weights(self.path, self.recipe))
        return model.to(memory_format=torch.channels_last).eval()

    def test_accuracy(self) -> float:
        """Accuracy on whole test images after training, with running statistics, in [0, 1]."""
        return float(self.final.query(_WHOLE)["accuracy"].item())


def description(recipe: Recipe, seed: int, provenance: dict, checksums: dict[str, str]) -> bytes:
    """The content of `run.json`; `checksums` are the SHA-256 of `FILES`, by name."""
    content = {"format": FORMAT_VERSION, "recipe": recipe.to_dict(), "hash": recipe.hash, "seed": seed}
    content |= {"provenance": provenance, "sha256": checksums}
    return (json.dumps(content, indent=2) + "\n").encode()


def load(path: Path) -> Run:
    """Load and check a stored run: every file of it.

    Raises:
        RunError: naming the file that is missing, damaged, edited or of another format, and what to do.
    """
    file = path / "run.json"
    try:
        content = json.loads(file.read_bytes())
        if content["format"] != FORMAT_VERSION:
            raise ValueError(f"format {content['format']!r}, expected {FORMAT_VERSION}")
        recipe, seed, provenance = Recipe(**content["recipe"]), content["seed"], content["provenance"]
        if recipe.hash != content["hash"] or recipe.run_name(seed) != path.name or not isinstance(provenance, dict):
            raise ValueError(f"an edited recipe or seed: they give {recipe.run_name(seed)}")
        checksums = {name: content["sha256"][name] for name in FILES}
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{file} is missing, damaged or edited ({type(error).__name__}: {error}): {ADVICE}") from error
    curves, final = (_read_table(path / name, checksums[name], recipe) for name in FILES[:2])
    read_weights(path, recipe, checksums[FILES[2]])
    return Run(recipe, seed, curves, final, provenance, path)


def _read(path: Path, checksum: str | None) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path} can't be read ({error}): {ADVICE}") from error
    if checksum and sha256(content) != checksum:
        raise RunError(f"{path} is damaged (its checksum is not the one in run.json): {ADVICE}")
    return content


def _read_table(path: Path, checksum: str, recipe: Recipe) -> pd.DataFrame:
    content, curves = _read(path, checksum), path.name == "curves.csv"
    try:
        table = pd.read_csv(io.BytesIO(content))
        if list(table.columns) != ["epoch"] * curves + CURVE_COLUMNS:
            raise ValueError(f"expected the columns of {path.name}, got {', '.join(table.columns)}")
        if not pd.to_numeric(table["accuracy"]).between(0, 1).all():
            raise ValueError("expected accuracies from 0 to 1")
        if set(table["epoch"]) != set(range(1, recipe.epochs + 1)) if curves else len(table.query(_WHOLE)) != 1:
            raise ValueError(f"expected epochs 1 to {recipe.epochs}" if curves else "expected one test accuracy")
    except (ValueError, TypeError) as error:
        raise RunError(f"{path} is not the table that it should be ({error}): {ADVICE}") from error
    return table


def read_weights(folder: Path, recipe: Recipe, checksum: str | None = None) -> dict[str, Tensor]:
    """Read and check `weights.safetensors` in a run's folder.

    Returns:
        The tensors as stored: parameters as float16, buffers as they are.
    Raises:
        RunError: it is missing or damaged, holds another network's weights, or numbers that are not finite.
    """
    path = folder / FILES[2]
    content = _read(path, checksum)
    try:
        found = safetensors.torch.load(content)
        with torch.device("meta"):  # shapes without numbers: nothing is drawn or allocated
            recipe.build().load_state_dict(found, assign=True)
    except (SafetensorError, RuntimeError) as error:
        told = " ".join(str(error).split())
        raise RunError(f"{path} does not hold the weights of {recipe.name} ({told}): {ADVICE}") from error
    if not all_finite(found):
        raise RunError(f"{path} holds weights that are not finite: {ADVICE}")
    return found


def stored_weights(model: nn.Module) -> dict[str, Tensor]:
    """The model's state as a run stores it: parameters in float16, buffers (BatchNorm's averages) as they are."""
    parameters = dict(model.named_parameters())
    return {
        name: (tensor.half() if name in parameters else tensor).cpu().contiguous()
        for name, tensor in model.state_dict().items()
    }


def fill_model(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Give a model the weights that a run stores, in float32."""
    model.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in weights.items()})


def put_in_place(whole: Path, final: Path) -> None:
    """Move the folder of a whole run to its place; an older run is replaced only now."""
    old = final.with_name(final.name + ".old.partial")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        os.replace(final, old)
    os.replace(whole, final)
    shutil.rmtree(old, ignore_errors=True)


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


@dataclass(frozen=True)
class StoreEntry:
    """A run in the store.

    Attributes:
        path, name, seed: its folder, and the recipe's name and the seed as far as the folder's name says them.
        state: "stored"; "training" (a process is at it) or "unfinished" (none is), with the epochs done; or "damaged".
        accuracy: on the test set, in [0, 1]; None unless stored.
        seconds: that training and the measurements after each epoch took; None unless stored.
        size: bytes of all its files.
        problem: what is wrong with a damaged one, and what to do.
    """

    path: Path
    name: str
    seed: int | None
    state: str
    accuracy: float | None = None
    seconds: float | None = None
    size: int = 0
    problem: str | None = None


def store_entries(where: Sequence[Path] | None = None) -> Iterator[StoreEntry]:
    """Every run in folders of runs, checked; None looks in `folders()`."""
    for folder in where or folders():
        for path in sorted(folder.glob("*")):
            if path.is_dir() and not path.name.startswith("incoming-") and not path.name.endswith(".old.partial"):
                yield _entry(path)


def _entry(path: Path) -> StoreEntry:
    size = sum(file.stat().st_size for file in path.iterdir() if file.exists())
    parts = re.fullmatch(r"(.+)-(\d+)-[0-9a-f]{10}(\.partial)?", path.name)
    name, seed = (parts[1], int(parts[2])) if parts else (path.name, None)
    try:
        if path.suffix == ".partial":
            done = epochs_done(path / "checkpoint.safetensors")
            state = "training" if _is_locked(path.with_suffix(".lock")) else "unfinished"
            return StoreEntry(path, name, seed, f"{state}, {done} epoch{'s' * (done != 1)} done", size=size)
        run = load(path)
        seconds = run.provenance.get("train_seconds", 0) + run.provenance.get("eval_seconds", 0)
        return StoreEntry(path, name, seed, "stored", run.test_accuracy(), seconds, size)
    except (RunError, CheckpointError) as error:
        return StoreEntry(path, name, seed, "damaged", size=size, problem=str(error))


def _is_locked(lock: Path) -> bool:
    try:
        with FileLock(lock, blocking=False) if lock.exists() else contextlib.nullcontext():
            return False
    except Timeout:
        return True
