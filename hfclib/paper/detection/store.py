"""Stored detectors: train one, or go on with its training; load one and refuse what is damaged.

A run is a folder `<preset>-<seed>-<hash>` of four files: `run.json` (recipe, seed, provenance and SHA-256 of the other
files), `results.csv` (one row per condition), `losses.csv` (one row per epoch) and `weights.safetensors` (parameters in
float16). Published runs are in `data/detection`, your own in `<home>/detection`.
"""

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import safetensors.torch
from torch import Tensor, nn

from hfclib._files import home, locked, sha256, write
from hfclib.devices import best_device
from hfclib.paper.detection.bccd import load_bccd
from hfclib.paper.detection.detector import DetectionRecipe, build_detector, fit_detector
from hfclib.paper.detection.measure import detector_inputs, measure_detector, stored_csv
from hfclib.runs.provenance import code_commit, run_json, training_provenance
from hfclib.runs.store import ADVICE, RunError, put_in_place, stored_at, stored_weights

_TABLES, _WEIGHTS = ("results.csv", "losses.csv"), "weights.safetensors"


@dataclass(frozen=True)
class DetectionRun:
    """A stored detector.

    Attributes:
        recipe, seed: how it was trained.
        results: from `scores_table`, on the test images, from the weights as stored.
        losses: one row per epoch, means of the two losses.
        provenance, path: versions, device, commits, seconds; its folder.
    """

    recipe: DetectionRecipe
    seed: int
    results: pd.DataFrame
    losses: pd.DataFrame
    provenance: dict
    path: Path

    def model(self) -> nn.Module:
        """The detector, in float32 on the CPU, in evaluation mode."""
        model = build_detector(self.recipe)
        model.load_state_dict(safetensors.torch.load_file(self.path / _WEIGHTS))
        return model.eval()


def evaluation_data(recipe: DetectionRecipe) -> tuple[Tensor, list[dict[str, Tensor]], Tensor]:
    """The images and targets on which a detector is measured, and the mean colour of its training images, (3,)."""
    images, _ = load_bccd("trainval", size=recipe.size, count=recipe.train_images)
    colour = (images.double().mean(dim=(0, 2, 3)) / 255).float()
    return *load_bccd("test", size=recipe.size, count=recipe.test_images), colour


def train_detection(recipe: DetectionRecipe, *, seed: int = 0, store: Path | None = None) -> DetectionRun:
    """Train a detector, or go on with its training; measure it, and store both.

    Args:
        recipe, seed: what to train; 0 or more.
        store: folder of runs; None is `<home>/detection`.
    Returns:
        The stored run. Killed at any moment and called again, the training goes on after the last finished epoch, and
        on a CPU ends in the same weights bit for bit. If another process trains the run, its result, after a wait.
    Raises:
        DataError, TrainingError, CheckpointError, OSError: as `load_bccd`, `fit_detector` and `write`.
    """
    final = (store or home() / "detection") / recipe.run_name(seed)
    before = stored_at(final)
    with locked(final.with_name(final.name + ".lock"), say=print) as waited:
        if not waited or stored_at(final) in (None, before):
            _train(recipe, seed, final)
        return load_detection(final)


def _train(recipe: DetectionRecipe, seed: int, final: Path) -> None:
    partial, device = final.with_name(final.name + ".partial"), best_device()
    partial.mkdir(parents=True, exist_ok=True)
    images, targets = load_bccd("trainval", size=recipe.size, count=recipe.train_images)
    options = {"seed": seed, "device": device, "checkpoint": partial / "checkpoint.safetensors"}
    model, state = fit_detector(recipe, images, targets, **options, commit=code_commit())
    weights = stored_weights(model)
    model.load_state_dict(weights)  # what is measured is what is stored
    results = measure_detector(model.cpu().eval(), *evaluation_data(recipe), detector_inputs(recipe.radii))
    tables = (stored_csv(table) for table in (results, pd.DataFrame(state.rows)))
    contents = dict(zip(_TABLES, tables, strict=True)) | {_WEIGHTS: safetensors.torch.save(weights)}
    provenance = training_provenance(state, device, "torchvision", "pycocotools") | {"precision": "float32"}
    checksums = {name: sha256(content) for name, content in contents.items()}
    contents["run.json"] = run_json({"format": 1, "settings": asdict(recipe), "seed": seed}, provenance, checksums)
    for name, content in contents.items():
        write(partial / name, content)
    put_in_place(partial, final)
    # Last: a process that is killed before this point repeats its final steps only.
    (final / options["checkpoint"].name).unlink(missing_ok=True)


def load_detection(path: Path) -> DetectionRun:
    """Load and verify a stored detector: every file of it.

    Raises:
        RunError: a file is missing, damaged or of another run; the message names it and says what to do.
    """
    file, contents = path / "run.json", {}
    try:
        content = json.loads(file.read_bytes())
        settings = {name: tuple(one) if isinstance(one, list) else one for name, one in content["settings"].items()}
        recipe, seed = DetectionRecipe(**settings), content["seed"]
        if recipe.run_name(seed) != path.name:
            raise ValueError(f"it belongs to {recipe.run_name(seed)}")
        provenance = {"eval_seconds": 0} | content["provenance"]
        for name in (*_TABLES, _WEIGHTS):
            file = path / name
            contents[name] = file.read_bytes()
            if sha256(contents[name]) != content["sha256"][name]:
                raise ValueError("its SHA-256 is not the one in run.json")
        results, losses = (pd.read_csv(io.BytesIO(contents[name])) for name in _TABLES)
        results["radius"] = results["radius"].where(results["radius"] > 0)  # 0 in the file, as `stored_csv` writes it
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{file} is missing or damaged ({error}): {ADVICE}") from error
    return DetectionRun(recipe, seed, results, losses, provenance, path)
