"""The checks of a stored run's files: what is missing, damaged or edited is refused by name, with what to do."""

import io
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from hfclib._files import NO_SEAL, all_finite, data_folder, home, parse_tensors, read_bytes, seal, seal_holds, sha256
from hfclib.evaluation import CURVE_COLUMNS
from hfclib.training.recipe import Recipe

FORMAT_VERSION = 2  # format 1 had no seal, so that a changed bit could go unnoticed
FILES = ("curves.csv", "final.csv", "weights.safetensors")  # beside run.json, which holds their checksums
ADVICE = "delete the folder and train the run again, or restore the published one"
_LARGEST_FILE = 2**26  # bytes of run.json and of a table; those of the published runs have some ten thousand


class RunError(RuntimeError):
    """A stored run that is missing or damaged."""


@dataclass(frozen=True)
class Description:
    """What `run.json` says.

    Attributes:
        recipe, seed, provenance: as in `Run`.
        checksums: of the other files, by name.
    """

    recipe: Recipe
    seed: int
    provenance: dict
    checksums: dict[str, str]


def description(recipe: Recipe, seed: int, provenance: dict, checksums: dict[str, str]) -> bytes:
    """The content of `run.json`, sealed."""
    content = {
        "format": FORMAT_VERSION,
        "recipe": recipe.to_dict(),
        "hash": recipe.hash,
        "seed": seed,
        "provenance": provenance,
        "sha256": checksums,
        "seal": NO_SEAL,
    }
    return seal((json.dumps(content, indent=2) + "\n").encode())


def read_description(path: Path) -> Description:
    """Read and check `run.json` in the folder of a run.

    Raises:
        RunError: it is missing, damaged, edited, of another format, or of another run than the folder's name says.
    """
    file = path / "run.json"
    try:
        raw = read_bytes(file, _LARGEST_FILE)
        content = json.loads(raw)
        if content["format"] != FORMAT_VERSION:
            raise RunError(f"{file} has format {content['format']!r}, expected {FORMAT_VERSION}: {ADVICE}")
        recipe, seed, provenance = Recipe(**content["recipe"]), content["seed"], content["provenance"]
        checksums = {name: content["sha256"][name] for name in FILES}
        edited = recipe.hash != content["hash"] or recipe.run_name(seed) != path.name
        whole = seal_holds(raw, content["seal"])
        if type(seed) is not int or not isinstance(provenance, dict):
            raise TypeError(f"seed is {seed!r}, provenance {provenance!r}")
    except (OSError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise RunError(f"{file} is missing or damaged ({type(error).__name__}: {error}): {ADVICE}") from error
    if edited:
        raise RunError(f"{file} holds an edited recipe or seed (they give {recipe.run_name(seed)}): {ADVICE}")
    if not whole:
        raise RunError(f"{file} is damaged (it was changed after it was written): {ADVICE}")
    return Description(recipe, seed, provenance, checksums)


def _checked(path: Path, most: int, checksum: str) -> bytes:
    try:
        content = read_bytes(path, most)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} can't be read ({error}): {ADVICE}") from error
    if sha256(content) != checksum:
        raise RunError(f"{path} is damaged (its checksum is not the one in run.json): {ADVICE}")
    return content


def read_table(path: Path, checksum: str, recipe: Recipe) -> pd.DataFrame:
    """Read and check `curves.csv` or `final.csv`.

    Args:
        path: the file; its name says which columns it has.
        checksum: that it must have.
        recipe: says how many epochs the curves have.
    Raises:
        RunError: it is missing or damaged, or is no table of accuracies in [0, 1].
    """
    content = _checked(path, _LARGEST_FILE, checksum)
    columns = [*(["epoch"] if path.name == "curves.csv" else []), *CURVE_COLUMNS]
    try:
        table = pd.read_csv(io.BytesIO(content))
        if list(table.columns) != columns or table.empty:
            raise ValueError(f"expected columns {', '.join(columns)}, got {', '.join(table.columns)}")
        if not pd.to_numeric(table["accuracy"]).between(0, 1).all():
            raise ValueError("expected accuracies from 0 to 1")
        if columns[0] == "epoch" and set(table["epoch"]) != set(range(1, recipe.epochs + 1)):
            raise ValueError(f"expected epochs 1 to {recipe.epochs}")
        whole = table.query("split == 'test' and band == 'x' and feed == 'raw' and bn_stats == 'running'")
        if columns[0] != "epoch" and len(whole) != 1:
            raise ValueError("expected one accuracy on the test set")
    except (ValueError, TypeError) as error:
        raise RunError(f"{path} is not the table that it should be ({error}): {ADVICE}") from error
    return table


def read_weights(path: Path, recipe: Recipe, checksum: str | None = None) -> dict[str, Tensor]:
    """Read and check `weights.safetensors`; arguments as in `read_table`, no checksum if None.

    Returns:
        The tensors as stored: parameters as float16, buffers as they are.
    Raises:
        RunError: it is missing or damaged, holds another network's weights, or numbers that are not finite.
    """
    try:
        with torch.device("meta"):  # shapes without numbers: nothing is drawn, and a huge network takes no memory
            expected = recipe.build().state_dict()
        most = 2**20 + 8 * sum(tensor.numel() for tensor in expected.values())
        content = read_bytes(path, most) if checksum is None else _checked(path, most, checksum)
        found, _ = parse_tensors(content)
        check_shapes(found, expected)
    except RunError:
        raise
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise RunError(f"{path} does not hold the weights of {recipe.name} ({error}): {ADVICE}") from error
    if not all_finite(found):
        raise RunError(f"{path} holds weights that are not finite: {ADVICE}")
    return found


def check_shapes(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raise ValueError, naming a tensor, unless both have the same names and shapes."""
    for name in found.keys() ^ expected.keys():
        raise ValueError(f"{name} is {'not expected' if name in found else 'missing'}")
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape:
            raise ValueError(f"{name} has shape {tuple(found[name].shape)}, expected {tuple(tensor.shape)}")


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
    return {
        name: (tensor.half() if name in parameters else tensor).cpu().contiguous()
        for name, tensor in model.state_dict().items()
    }


def _fill(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Give the model weights as a run stores them, in float32."""
    model.load_state_dict(
        {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    )


def put_in_place(whole: Path, final: Path) -> None:
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
