"""The run store: load a stored run, or train it; checkpoints, resume, verification and provenance.

A run is a folder `<recipe>-<seed>-<hash>` of four files: `run.json` (recipe, seed, provenance and the checksums of the
others), `curves.csv` (accuracy after each epoch), `final.csv` (accuracy after training) and `weights.safetensors`
(parameters as float16). Runs are published with the package in `data/runs`; your own go to `<home>/runs`. A training
under way lives in `<run>.partial`, whose checkpoint is replaced after every epoch.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import hfclib
from hfclib import checkpoints
from hfclib.adversarial import final_rows
from hfclib.checkpoints import write
from hfclib.data import data_folder, embedded, home, to_float
from hfclib.devices import best_device, device_name, gains_from_bf16
from hfclib.evaluation import CURVE_COLUMNS, curve_rows
from hfclib.recipes import RADII, Recipe
from hfclib.training import Progress, fit, measured_parts, training_set

FORMAT_VERSION = 1
FILES = ("curves.csv", "final.csv", "weights.safetensors")  # beside run.json, which holds their checksums
TRAIN_IMAGES_AT_END = 5_000  # the embedded ones, so that anyone can recompute the final training accuracy


class RunError(RuntimeError):
    """A stored run that is missing or damaged."""


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
        path = self.path / "weights.safetensors"
        model = self.recipe.build()
        try:
            _fill(model, load_file(path))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise RunError(f"{path} does not hold the weights of {self.recipe.name}: {error}") from error
        if not all(torch.isfinite(tensor).all() for tensor in model.state_dict().values()):
            raise RunError(f"{path} holds weights that are not finite; delete the folder and train the run again")
        return model.to(memory_format=torch.channels_last).eval()

    def test_accuracy(self) -> float:
        """Accuracy on whole test images after training, with running statistics, in [0, 1]."""
        rows = self.final.query("split == 'test' and band == 'x' and feed == 'raw' and bn_stats == 'running'")
        return float(rows["accuracy"].item())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def commit() -> str:
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


def stored_weights(model: nn.Module) -> dict[str, Tensor]:
    """The model's state as a run stores it: parameters in float16, buffers (BatchNorm's averages) as they are."""
    parameters = dict(model.named_parameters())
    return {name: (tensor.half() if name in parameters else tensor).cpu().contiguous()
            for name, tensor in model.state_dict().items()}  # fmt: skip


def _fill(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Give the model weights as a run stores them, in float32."""
    model.load_state_dict({name: tensor.float() if tensor.is_floating_point() else tensor
                           for name, tensor in weights.items()})  # fmt: skip


def _final_rows(recipe: Recipe, model: nn.Module, *, progress: bool) -> list[dict]:
    images, labels = training_set(recipe, progress=progress)
    if len(labels) > TRAIN_IMAGES_AT_END:
        images, labels = embedded("train")
    test_images, test_labels = (tensor[: recipe.final_images] for tensor in embedded("test"))
    parts = measured_parts(recipe, (images, labels), (test_images, test_labels))
    test = to_float(test_images), test_labels
    return curve_rows(model, parts, test, RADII, exact=True) + final_rows(model, *test, recipe)


def train(
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device | None = None,
    store: Path | None = None,
    progress: bool = True,
) -> Run:
    """Train a recipe, or go on with its training, and store the run.

    Args:
        recipe: what to train.
        seed: 0 or more.
        device: None finds the best.
        store: folder of runs; None is `<home>/runs`.
        progress: show a bar.
    Returns:
        The stored run. Killed at any moment and called again, it goes on after the last finished epoch and, on a CPU,
        ends in the same weights bit for bit.
    Raises:
        ValueError: a bad seed.
        CheckpointError: a damaged checkpoint.
        TrainingError, DataError: as `training.fit`.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"expected seed, a whole number of at least 0, got {seed!r}")
    device = device or best_device()
    final = (store or home() / "runs") / recipe.run_name(seed)
    partial = final.with_name(final.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    checkpoint, code = partial / "checkpoint.safetensors", commit()

    def restore(*objects) -> Progress:
        state = checkpoints.restore(checkpoint, *objects)
        state.commits = list(dict.fromkeys([*state.commits, code]))
        return state

    model, state = fit(recipe, seed=seed, device=device, restore=restore, progress=progress,
                       checkpoint=lambda *objects: checkpoints.save(checkpoint, *objects))  # fmt: skip
    weights = stored_weights(model)
    _fill(model, weights)
    tables = {"curves.csv": (["epoch", *CURVE_COLUMNS], state.rows),
              "final.csv": (CURVE_COLUMNS, _final_rows(recipe, model, progress=progress))}  # fmt: skip
    save_file(weights, partial / "weights.safetensors", {"run": final.name})  # one entry: their order is random
    for name, (columns, rows) in tables.items():
        text = pd.DataFrame(rows)[columns].to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write(partial / name, text.encode())
    provenance = {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "commits": state.commits,
        "train_seconds": round(state.train_seconds),
        "eval_seconds": round(state.eval_seconds),
        "device": device_name(device),
        "precision": "bfloat16 autocast" if gains_from_bf16(device) else "float32",
        "versions": {"hfclib": hfclib.__version__, "torch": torch.__version__, "python": platform.python_version()},
    }
    files = {name: _sha256((partial / name).read_bytes()) for name in FILES}
    content = {"format": FORMAT_VERSION, "recipe": recipe.to_dict(), "hash": recipe.hash, "seed": seed,
               "provenance": provenance, "sha256": files}  # fmt: skip
    write(partial / "run.json", (json.dumps(content, indent=2) + "\n").encode())
    if final.exists():  # retrained: the old run makes way only now that the new one is whole
        shutil.rmtree(final)
    os.replace(partial, final)
    (final / checkpoint.name).unlink()  # last: a training killed before this point repeats its final steps only
    return load(final)


def load(path: Path) -> Run:
    """Load and verify a stored run.

    Raises:
        RunError: naming the file that is missing, damaged or of another format, and what to do.
    """
    advice = "delete the folder and train the run again, or restore the published one"
    file = path / "run.json"
    try:
        content = json.loads(file.read_bytes())
        if content["format"] != FORMAT_VERSION:
            raise RunError(f"{file} has format {content['format']}, expected {FORMAT_VERSION}")
        recipe, seed, provenance = Recipe(**content["recipe"]), content["seed"], content["provenance"]
        edited = recipe.hash != content["hash"] or recipe.run_name(seed) != path.name
        checksums = {name: content["sha256"][name] for name in FILES}
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{file} is missing or damaged ({type(error).__name__}: {error}): {advice}") from error
    if edited:
        raise RunError(f"{file} holds an edited recipe or seed (they give {recipe.run_name(seed)}): {advice}")
    for name, expected in checksums.items():
        try:
            found = _sha256((path / name).read_bytes())
        except OSError as error:
            raise RunError(f"{path / name} can't be read ({error}): {advice}") from error
        if found != expected:
            raise RunError(f"{path / name} is damaged (its checksum is not the one in run.json): {advice}")
    curves, final = (pd.read_csv(path / name) for name in FILES[:2])
    return Run(recipe, seed, curves, final, provenance, path)


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
