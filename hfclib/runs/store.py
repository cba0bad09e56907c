"""The run store: what a run is, how it is found, loaded and checked, and what the store holds.

A run is a folder `<recipe>-<seed>-<hash>` of four files: `run.json` (recipe, seed, provenance and the SHA-256 of the
others), `curves.csv` (accuracy after each epoch), `final.csv` (accuracy after training) and `weights.safetensors`
(parameters as float16). Published runs are in `data/runs`, your own in `<home>/runs`. Of a published run that no page
computes with, the weights' checksum is kept and the weights are not.
"""

import contextlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import safetensors.torch
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from torch import Tensor, nn

from hfclib._files import data_folder, homes, sha256, write
from hfclib.batching import logits
from hfclib.data import DATA_SETS
from hfclib.models import REGISTERED
from hfclib.runs.provenance import run_json
from hfclib.training.checkpoint import CheckpointError, epochs_done
from hfclib.training.loop import seeded
from hfclib.training.recipe import STORED_FIELDS, Recipe

FORMAT_VERSION = 2
WEIGHTS = "weights.safetensors"
FILES = ("curves.csv", "final.csv", WEIGHTS)  # beside run.json, which holds their checksums
ADVICE = "delete the folder and train the run again, or restore the published one"
_WHOLE = "split == 'test' and band == 'x' and feed == 'raw' and bn_stats == 'running'"


class RunError(RuntimeError):
    """A stored run that is missing or damaged."""


@dataclass(frozen=True)
class Run:
    """A stored run.

    Attributes:
        recipe, seed: how it was trained.
        curves: one row per measurement, columns "epoch" and CURVE_COLUMNS: epochs 1 to recipe.epochs, on the first
            recipe.eval_images of each set.
        final: the same after training, from the weights as stored, on the first recipe.final_images of the test set
            and up to 5,000 training images. Adversarial training adds rows of whole test images to both, with feed
            "pgd10" and "pgd20" (`robust_rows`), and `Recipe.train_bands` adds rows of the bands of training images.
        provenance, path: versions, device, commits, seconds; its folder.
    """

    recipe: Recipe
    seed: int
    curves: pd.DataFrame
    final: pd.DataFrame
    provenance: dict
    path: Path

    @property
    def has_weights(self) -> bool:
        """Whether its weights are kept, and not the tables alone."""
        return (self.path / WEIGHTS).exists()

    @property
    def batch_norm(self) -> bool:
        """Whether its network has BatchNorm; it was then measured with test-batch statistics, too."""
        return "batch" in set(self.final["bn_stats"])

    def model(self) -> nn.Module:
        """The trained network, in float32 on the CPU, in evaluation mode.

        Raises:
            RunError: its weights can't be read, or its network is not registered in this process.
        """
        path, network = self.path / WEIGHTS, self.recipe.model.network
        if not self.has_weights:
            raise RunError(
                f"{path} is not there: of this run only tables are kept; `hfc train CHAPTER --retrain` trains it again"
            )
        if network not in REGISTERED:
            advice = "import what registers it (hfclib.models.register_network)"
            raise RunError(f"{path} is of the network {network!r}, which this process does not know: {advice}")
        model = self.recipe.build()
        try:
            model.load_state_dict(safetensors.torch.load(_read(path)))
        except (SafetensorError, RuntimeError) as error:
            said = " ".join(str(error).split())
            raise RunError(f"{path} does not hold the weights of {self.recipe.name} ({said}): {ADVICE}") from error
        return model.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]  # a gap in its types

    def test_accuracy(self) -> float:
        """Accuracy on whole test images after training, with running averages, in [0, 1]."""
        return float(self.final.query(_WHOLE)["accuracy"].item())


def description(recipe: Recipe, seed: int, provenance: dict, checksums: dict[str, str]) -> bytes:
    """The content of `run.json`; `checksums` are the SHA-256 of `FILES`, by name."""
    identity = {"format": FORMAT_VERSION, "recipe": recipe.to_dict(), "hash": recipe.hash, "seed": seed}
    return run_json(identity, provenance, checksums)


def load(path: str | Path) -> Run:
    """Load a stored run and check every file of it.

    Args:
        path: its folder.
    Raises:
        RunError: a file is missing, damaged, edited or of another format; says which, and what to do.
    """
    path = Path(path).absolute()
    file = path / "run.json"
    try:
        content = json.loads(file.read_bytes())
        new = [name for name in content["recipe"] if name not in STORED_FIELDS]
        if content["format"] != FORMAT_VERSION or new:
            versions = (
                f"format {content['format']!r}, expected {FORMAT_VERSION}" + "; new: " * bool(new) + ", ".join(new)
            )
            raise RunError(f"{file} is of another version of hfclib ({versions}): use that version, or {ADVICE}")
        recipe, seed, provenance = Recipe.from_dict(content["recipe"]), content["seed"], content["provenance"]
        if recipe.hash != content["hash"] or recipe.run_name(seed) != path.name or not isinstance(provenance, dict):
            raise ValueError(f"an edited recipe or seed: they give {recipe.run_name(seed)}")
        checksums = {name: content["sha256"][name] for name in FILES}
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{file} is missing, damaged or edited ({type(error).__name__}: {error}): {ADVICE}") from error
    curves, final = (pd.read_csv(io.BytesIO(_read(path / name, checksums[name]))) for name in FILES[:2])
    if not content.get("weights_dropped") or (path / WEIGHTS).exists():
        _read(path / WEIGHTS, checksums[WEIGHTS])
    run = Run(recipe, seed, curves, final, provenance, path)
    network = REGISTERED.get(recipe.model.network)
    if network and network.is_own and run.has_weights and "answers" in provenance:
        check_answers(run.model(), recipe, provenance["answers"], path)
    return run


def answers(model: nn.Module, recipe: Recipe) -> list[float]:
    """The logits of two fixed images, by which a network is told from another that was given the same name."""
    source = DATA_SETS[recipe.data.dataset]
    ramp = torch.linspace(0, 1, 2 * len(source.mean) * source.side**2, device="cpu")
    with seeded(0):  # one that draws random numbers draws the same again
        return logits(model, ramp.view(2, -1, source.side, source.side)).flatten().tolist()


def check_answers(model: nn.Module, recipe: Recipe, expected: Sequence[float], path: Path) -> None:
    """Raise a RunError if a network with the weights of a run or a checkpoint does not answer as when it was stored."""
    found, stored = torch.tensor(answers(model, recipe)), torch.tensor(expected)
    if not torch.allclose(found, stored, rtol=0.01, atol=0.01 * float(stored.abs().max())):
        told = f"the network {recipe.model.network!r} was another when {path} was stored"
        raise RunError(f"{told}: give the network of now another name, or {ADVICE}")


def _read(path: Path, checksum: str | None = None) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path} can't be read ({error}): {ADVICE}") from error
    if checksum and sha256(content) != checksum:
        raise RunError(f"{path} is damaged (its checksum is not the one in run.json): {ADVICE}")
    return content


def drop_weights(path: Path) -> None:
    """Delete the weights of the stored run in a folder; `run.json` says so, and keeps their checksum."""
    content = json.loads((path / "run.json").read_bytes()) | {"weights_dropped": True}
    write(path / "run.json", (json.dumps(content, indent=2) + "\n").encode())
    (path / WEIGHTS).unlink()


def stored_weights(model: nn.Module) -> dict[str, Tensor]:
    """The model's state as a run stores it: parameters in float16, buffers (BatchNorm's averages) as they are."""
    parameters = dict(model.named_parameters(remove_duplicate=False))  # tied ones have several names
    return {  # copies: no file holds tensors that share memory, as those of a shared BatchNorm do
        name: (tensor.half() if name in parameters else tensor).to("cpu", copy=True).contiguous()
        for name, tensor in model.state_dict().items()
    }


def stored_at(final: Path) -> int | None:
    """When the run in a folder was stored, in nanoseconds; None if there is none."""
    file = final / "run.json"
    return file.stat().st_mtime_ns if file.exists() else None


def put_in_place(whole: Path, final: Path) -> None:
    """Move the folder of a whole run to its place; an older run is replaced only now."""
    old = final.with_name(final.name + ".old.partial")
    _remove(old)
    if os.path.lexists(final):  # also a link to nothing
        os.replace(final, old)
    os.replace(whole, final)
    _remove(old)


def _remove(folder: Path) -> None:
    if folder.is_symlink():  # to a run on another disk, which stays there
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def folders() -> list[Path]:
    """Where runs are looked for: the published ones, then your own."""
    return [place / "runs" for place in (data_folder(), *homes())]


def is_published(path: Path) -> bool:
    """Whether the folder of a run is one of those published with the repository, and not your own."""
    return data_folder() in path.parents


def stored_seeds(recipe: Recipe, places: Iterable[Path]) -> list[int]:
    """The seeds with which a recipe is stored in one of `places`, folders of runs, in order."""
    pattern = recipe.run_name("*")
    start, end = pattern.split("*")
    names = (path.name for folder in places for path in folder.glob(pattern))
    seeds = {name.removeprefix(start).removesuffix(end) for name in names}
    return sorted(int(seed) for seed in seeds if seed.isdecimal())


def find(recipe: Recipe, seed: int, store: str | Path | None = None, *, weights: bool = True) -> Run | None:
    """The stored run of a recipe and seed, a published one before one of yours; None if it was never trained.

    Args:
        recipe, seed: of the training; the recipe's name is part of the run's.
        store: the folder of runs to look in; None looks in `folders()`.
        weights: whether a published run without weights yields to one of yours that has them.
    Raises:
        RunError: it is there but damaged.
    """
    paths = [folder / recipe.run_name(seed) for folder in ([Path(store)] if store else folders())]
    there = [path for path in paths if path.is_dir()]
    with_weights = [path for path in there if weights and (path / WEIGHTS).exists()]
    return load((with_weights or there)[0]) if there else None


@dataclass(frozen=True)
class StoreEntry:
    """A folder in the store: a run, or a training under way."""

    path: Path
    name: str  # of the recipe, as far as the folder's name says it
    seed: int | None
    size: int  # bytes of all files
    # "stored", "stored, no weights"; "training" (a process is at it) or "unfinished" (none is), with the epochs done;
    # "damaged".
    state: str
    run: Run | None = None  # if it is stored
    problem: str | None = None  # if it is damaged: what is wrong, and what to do


def store_entries(where: Sequence[Path] | None = None) -> Iterator[StoreEntry]:
    """Every run in folders of runs, checked; None looks in `folders()`."""
    for folder in where or folders():
        for path in sorted(folder.glob("*")):
            if path.is_dir() and not path.name.startswith("incoming-") and not path.name.endswith(".old.partial"):
                yield _entry(path)


def _entry(path: Path) -> StoreEntry:
    parts = re.fullmatch(r"(.+)-(\d+)-[0-9a-f]{10}(\.partial)?", path.name)
    name, seed = (parts[1], int(parts[2])) if parts else (path.name, None)
    entry = partial(StoreEntry, path, name, seed, sum(file.stat().st_size for file in path.iterdir() if file.exists()))
    try:
        if path.suffix != ".partial":
            run = load(path)
            return entry("stored" if run.has_weights else "stored, no weights", run)
        done = epochs_done(path / "checkpoint.safetensors")
        state = "training" if _is_locked(path.with_suffix(".lock")) else "unfinished"
        return entry(f"{state}, {done} epoch{'s' * (done != 1)} done")
    except (RunError, CheckpointError) as error:
        return entry("damaged", problem=str(error))


def _is_locked(lock: Path) -> bool:
    try:
        with FileLock(lock, blocking=False) if lock.exists() else contextlib.nullcontext():
            return False
    except Timeout:
        return True
