"""The chapter on detection as the book knows it: its parameters, its detectors and its claims."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field, ValidationInfo, field_validator

from hfclib._files import data_folder, homes
from hfclib.devices import best_device, device_name
from hfclib.paper.chapter import OWN_RUNS, Chapter
from hfclib.paper.detection.claims import MATCHED_RADIUS, detection_cells
from hfclib.paper.detection.detector import DETECTION_PRESETS, DetectionRecipe
from hfclib.paper.detection.store import DetectionRun, load_detection, train_detection
from hfclib.paper.parameters import SeveralSeeds, choice
from hfclib.paper.presets import Preset
from hfclib.runs.store import is_published, stored_seeds

_RADII = {preset: recipe.radii for preset, recipe in DETECTION_PRESETS.items()}
_ALLOWED = "one of {} DFT bins, at preset smoke {}".format(*(", ".join(map(str, radii)) for radii in _RADII.values()))


class DetectionParameters(SeveralSeeds):
    """The parameters of `notebooks/detection.ipynb`."""

    preset: choice(Literal["laptop", "smoke"], tuple(_RADII)) = Field("laptop", title="whose runs")
    radius: Annotated[int, Field(description=_ALLOWED)] = Field(MATCHED_RADIUS, title="where the pictures are cut")

    @field_validator("radius")
    @classmethod
    def _measured(cls, radius: int, fields: ValidationInfo) -> int:
        if radius not in _RADII[fields.data.get("preset", "laptop")]:
            raise ValueError("the bands are not measured at this radius")
        return radius


def gather_detections(runs: Sequence[DetectionRun]) -> pd.DataFrame:
    """The results of several runs as one table, with a column "seed"; the image and its mirror image have no radius."""
    results = pd.concat([run.results.assign(seed=run.seed) for run in runs], ignore_index=True)
    return results.astype({"radius": "Int64"})


class DetectionChapter(Chapter):
    """A chapter whose networks are detectors, which have recipes and stored runs of their own."""

    def folders(self) -> list[Path]:
        """Where detectors are looked for: the published ones, then your own."""
        return [place / "detection" for place in (data_folder(), *homes())]

    def find(self, recipe: DetectionRecipe, seed: int) -> DetectionRun | None:
        """The stored detector of a recipe and seed; None if it was never trained."""
        paths = [folder / recipe.run_name(seed) for folder in self.folders()]
        return next((load_detection(path) for path in paths if path.is_dir()), None)

    def obtain(self, settings: DetectionParameters) -> list[DetectionRun]:
        """The detectors, one per seed: loaded, or trained if they are missing or `retrain` says so."""
        recipe = DETECTION_PRESETS[settings.preset]
        stored = {seed: None if settings.retrain else self.find(recipe, seed) for seed in settings.all_seeds}
        if missing := sum(run is None for run in stored.values()):
            minutes = missing * recipe.epochs * recipe.train_images * 0.02 / 60  # on one core of a laptop
            print(f"{missing} run(s) to train on {device_name(best_device())}: about {minutes:.1f} minutes", flush=True)
        runs = [run or train_detection(recipe, seed=seed) for seed, run in stored.items()]
        if self.is_own(settings.preset, runs):
            print(OWN_RUNS)
        return runs

    def published_runs(self, preset: Preset = "laptop") -> list[DetectionRun]:
        """All published detectors of a preset; your own folder is not read."""
        recipe = DETECTION_PRESETS.get(preset)
        seeds = stored_seeds(recipe, self.folders()[:1]) if recipe else ()
        return [self.find(recipe, seed) for seed in seeds]

    def is_own(self, preset: Preset, runs: Sequence[DetectionRun]) -> bool:
        """As in `Chapter`."""
        return any(run.recipe == DETECTION_PRESETS.get(preset) and not is_published(run.path) for run in runs)


DETECTION = DetectionChapter(
    name="detection",
    question="Does a detector need the high frequencies?",
    topic="detection",
    paper="section 7",
    figures={"detection-by-radius": "afterwards", "detection-better": "afterwards", "detection-boxes": "weights"},
    recipes=lambda preset: {"detector": DETECTION_PRESETS[preset]},
    parameters=DetectionParameters,
    required=("detector",),
    evidence=gather_detections,
    cells=detection_cells,
    measures=r"(mAP|better)_(x|lfc|hfc|mirror)(_mean)?",
)
