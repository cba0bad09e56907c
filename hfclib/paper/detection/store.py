"""Stored detectors: train one, or go on with its training; load one and refuse what is damaged.

A run is a folder `<preset>-<seed>-<hash>` of four files: `run.json` (settings, seed, provenance, SHA-256 of the other
files and of itself), `results.csv` (one row per condition), `losses.csv` (one row per epoch) and `weights.safetensors`
(parameters in float16). Published runs are in `data/detection`, your own in `<home>/detection`.
"""

import io
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load as parsed
from safetensors.torch import save as serialized
from torch import Tensor, nn

from hfclib.data import data_folder, home
from hfclib.devices import best_device, device_name
from hfclib.files import locked, sha256, write
from hfclib.paper.detection import bccd, detector, measure
from hfclib.paper.detection.detector import PRESETS, Settings
from hfclib.provenance import commit

FORMAT = 1
FILES = ("results.csv", "losses.csv", "weights.safetensors")
_ADVICE = "restore the published one, or delete its folder and train it again"


class RunError(RuntimeError):
    """A stored detector that is missing or damaged."""


@dataclass(frozen=True)
class Run:
    """A stored detector.

    Attributes:
        settings, seed: how it was trained.
        results: `measure.COLUMNS`, on the test images, from the weights as stored.
        losses: "epoch", "classification", "bbox_regression": means over the epoch.
        provenance: versions, device, commits, seconds.
        path: its folder.
    """

    settings: Settings
    seed: int
    results: pd.DataFrame
    losses: pd.DataFrame
    provenance: dict
    path: Path

    def model(self) -> nn.Module:
        """The detector, in float32 on the CPU, in evaluation mode."""
        model = detector.build(self.settings)
        _fill(model, (self.path / "weights.safetensors").read_bytes())
        return model.eval()


def _fill(model: nn.Module, weights: bytes) -> None:
    tensors = parsed(weights)
    model.load_state_dict({name: one.float() if one.is_floating_point() else one for name, one in tensors.items()})


def _sealed(content: dict) -> bytes:
    return (json.dumps(content | {"seal": sha256(json.dumps(content).encode())}, indent=2) + "\n").encode()


def measured_images(settings: Settings) -> tuple[Tensor, list[dict[str, Tensor]], Tensor]:
    """The images and targets on which a detector is measured, and the mean colour of its training images."""
    images, _ = bccd.load("trainval", size=settings.size, count=settings.train_images)
    return *bccd.load("test", size=settings.size, count=settings.test_images), bccd.mean_colour(images)


def train(
    preset: str = "laptop",
    *,
    seed: int = 0,
    store: Path | None = None,
    device: torch.device | None = None,
    settings: Settings | None = None,
    progress: bool = True,
) -> Run:
    """Train a detector, measure it, and store both; a stored one is loaded, one that was cut off goes on.

    Args:
        preset: a name in `detector.PRESETS`.
        seed: 0 or more.
        store: folder of runs; None is `<home>/detection`.
        device: None finds the best.
        settings: other settings than the preset's.
        progress: show bars.
    Returns:
        The stored run. Killed at any moment and called again, the training goes on after the last finished epoch, and
        on a CPU ends in the same weights bit for bit. If another process trains the run, its result, after a wait.
    Raises:
        ValueError: a bad preset or seed.
        DataError, TrainingError, RunError, OSError: data, checkpoint or stored run are damaged, or the disk is full.
    """
    if settings is None and preset not in PRESETS:
        raise ValueError(f"expected preset, one of {', '.join(PRESETS)}, got {preset!r}")
    if type(seed) is not int or seed < 0:
        raise ValueError(f"expected seed, a whole number of at least 0, got {seed!r}")
    settings, device = settings or PRESETS[preset], device or best_device()
    final = (store or home() / "detection") / settings.run_name(seed)
    with locked(final.with_name(final.name + ".lock"), wait=True, say=print):
        return load(final) if final.is_dir() else _train(settings, seed, device, final, progress)


def _train(settings: Settings, seed: int, device: torch.device, final: Path, progress: bool) -> Run:
    partial = final.with_name(final.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    images, targets = bccd.load("trainval", size=settings.size, count=settings.train_images)
    model, state = detector.fit(
        settings,
        images,
        targets,
        seed=seed,
        device=device,
        checkpoint=partial / "checkpoint",
        commit=commit(),
        progress=progress,
    )
    parameters = dict(model.named_parameters())
    weights = serialized(
        {
            name: (one.half() if name in parameters else one).cpu().contiguous()
            for name, one in model.state_dict().items()
        }
    )
    _fill(model, weights)  # what is measured is what is stored
    asked = measure.conditions(settings.radii)
    results = measure.measure(model.cpu().eval(), *measured_images(settings), asked, progress=progress)
    contents = dict(zip(FILES, (_csv(results), _csv(pd.DataFrame(state.rows)), weights), strict=True))
    provenance = {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "commits": state.commits,
        "train_seconds": round(state.seconds),
        "device": device_name(device),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "torchvision", "pycocotools")},
    }
    description = {"format": FORMAT, "settings": asdict(settings), "seed": seed, "provenance": provenance}
    contents["run.json"] = _sealed(description | {"sha256": {name: sha256(contents[name]) for name in FILES}})
    for name, content in contents.items():
        write(partial / name, content)
    os.replace(partial, final)
    (final / "checkpoint").unlink()  # last: a process killed before this point repeats its final steps only
    return load(final)


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode()


def load(path: Path) -> Run:
    """Load and verify a stored detector: every file of it.

    Raises:
        RunError: a file is missing, damaged or of another format; the message names it and says what to do.
    """
    try:
        content = json.loads((path / "run.json").read_bytes())
        seal = content.pop("seal")
        if seal != sha256(json.dumps(content).encode()):
            raise ValueError("it was changed after it was written")
        if content["format"] != FORMAT:
            raise ValueError(f"expected format {FORMAT}, got {content['format']}")
        settings, seed = Settings(**content["settings"]), content["seed"]
        if settings.run_name(seed) != path.name:
            raise ValueError(f"it belongs to {settings.run_name(seed)}")
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise RunError(f"{path / 'run.json'} is missing or damaged ({error}): {_ADVICE}") from error
    tables = []
    for name in FILES:
        try:
            raw = (path / name).read_bytes()
        except OSError as error:
            raise RunError(f"{path / name} can't be read ({error}): {_ADVICE}") from error
        if sha256(raw) != content["sha256"][name]:
            raise RunError(f"{path / name} is damaged (its SHA-256 is not the one in run.json): {_ADVICE}")
        if name.endswith(".csv"):
            tables.append(pd.read_csv(io.BytesIO(raw)))
    return Run(settings, seed, *tables, content["provenance"], path)


def stored(preset: str, seed: int) -> Path | None:
    """The folder of a stored run, published or your own; None if there is none."""
    name = PRESETS[preset].run_name(seed)
    folders = [folder / "detection" / name for folder in (data_folder(), home())]
    return next((folder for folder in folders if folder.is_dir()), None)


@dataclass(frozen=True)
class Parameters:
    """The parameters of the notebook, checked: a radius that is stored, a preset, seeds, whether to train again."""

    radius: float
    preset: str
    seeds: tuple[int, ...]
    retrain: bool


def check(*, radius: float, preset: str, seeds: int | list[int], retrain: bool) -> Parameters:
    """Check the parameters of the notebook before any work.

    Raises:
        ValueError: says which parameter is wrong and what is allowed.
    """

    def refuse(name: str, value: object, expected: str) -> ValueError:
        return ValueError(f"parameter {name} = {value!r}: expected {expected}")

    if preset not in PRESETS:
        raise refuse("preset", preset, "laptop or smoke; paper is `python -m hfclib.paper.detection coco FOLDER`")
    radii = PRESETS[preset].radii
    if isinstance(radius, bool) or radius not in radii:
        raise refuse("radius", radius, f"one of {', '.join(map(str, radii))} (DFT bins)")
    listed = seeds if isinstance(seeds, list) else [seeds]
    if not listed or not all(type(seed) is int and seed >= 0 for seed in listed) or len(set(listed)) < len(listed):
        raise refuse("seeds", seeds, "a whole number of at least 0, or a list of different ones")
    if not isinstance(retrain, bool):
        raise refuse("retrain", retrain, "True or False")
    absent = [PRESETS[preset].run_name(seed) for seed in listed if stored(preset, seed) is None]
    if absent and not retrain:
        expected = f"seeds whose runs are stored, or retrain; not stored at preset {preset}: {', '.join(absent)}"
        raise refuse("seeds", seeds, expected)
    return Parameters(radius, preset, tuple(listed), retrain)


def obtain(preset: str, seeds: Sequence[int], *, retrain: bool = False) -> list[Run]:
    """The runs of a preset, one per seed.

    Args:
        preset: a name in `detector.PRESETS`.
        seeds: whose runs are stored, unless `retrain`.
        retrain: train the published ones again, too; what this machine has trained before is loaded.
    """
    if not retrain:
        return [load(stored(preset, seed)) for seed in seeds]
    settings = PRESETS[preset]
    minutes = len(seeds) * settings.epochs * settings.train_images * 0.02 / 60  # on one core of a laptop
    print(f"{len(seeds)} run(s) to train on {device_name(best_device())}: about {minutes:.1f} minutes", flush=True)
    return [train(preset, seed=seed, progress=False) for seed in seeds]


def gather(runs: Sequence[Run]) -> pd.DataFrame:
    """The results of several runs as one table, with a column "seed"."""
    return pd.concat([run.results.assign(seed=run.seed) for run in runs], ignore_index=True)
