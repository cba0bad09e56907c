"""Measurements of networks as one tidy table: a row for each, and one meaning for each column.

Stored tables keep the form that they have had from the first run on: -1 for no radius, an attack in the column of the
feed, "clean" in that of the split. Only `measurements` reads that form.

- preset, variant, seed: of the network. `draw` is what its initial weights hang on beside the seed (`initial_draw`).
- epoch: after which epoch; none where it is of the weights as stored, after training.
- split, band, radius: of the images, such as "test"; "x" with no radius for whole ones, or "lfc" or "hfc" at a radius.
- feed, bn_stats: what is fed of a band, and what normalises, as in a `Condition`; "matched" for moments matched to the
  test batch.
- attack, eps: "none" and 0, or "pgd10" and "pgd20", PGD in so many steps, and its size in Linf.
- measure: "accuracy"; "clean accuracy" for a network with a planted signal on test images without it.
- n, value: how many images, and what came of them, in [0, 1].
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pandas as pd

from hfclib.data import DATA_SETS
from hfclib.runs.store import Run
from hfclib.training.adversarial import FINAL_ATTACK
from hfclib.training.recipe import Recipe

MEASUREMENT_COLUMNS = ["preset", "variant", "seed", "draw", "epoch", "split", "band", "radius", "feed", "bn_stats"]
MEASUREMENT_COLUMNS += ["attack", "eps", "measure", "n", "value"]
_STORED_NAMES = {"accuracy": "value", "images": "n", "statistics": "bn_stats"}
_FINAL = f"pgd{FINAL_ATTACK['steps']}"


def measurements(stored: pd.DataFrame, variant: str, run: Run) -> pd.DataFrame:
    """The rows of a table that is stored with a run, or beside it, in the form of this module.

    Args:
        stored: such as `Run.final`. Columns that only one chapter has stay as they are.
        variant, run: the network's name in its chapter, and the run.
    """
    rows = stored.rename(columns=_STORED_NAMES)
    columns: dict[str, object] = {}
    if "radius" in rows:
        radii = rows["radius"].to_numpy("int64")
        columns["radius"] = pd.arrays.IntegerArray(radii, radii < 0)
    if "bn_stats" in rows:
        attacked = rows["feed"].str.startswith("pgd")
        own = run.recipe.attack.eps if run.recipe.attack else 0.0
        columns["attack"] = rows["feed"].where(attacked, "none")
        columns["eps"] = np.where(attacked, np.where(rows["feed"] == _FINAL, FINAL_ATTACK["eps"], own), 0.0)
        columns["feed"] = rows["feed"].mask(attacked, "raw")
        columns["measure"] = "accuracy"
    if "split" in rows and (clean := rows["split"] == "clean").any():
        columns["split"] = rows["split"].mask(clean, "test")
        columns["measure"] = np.where(clean, "clean accuracy", "accuracy")
    place = {"preset": preset_of(run.recipe), "variant": variant, "seed": run.seed, "draw": initial_draw(run.recipe)}
    epoch = rows["epoch"].astype("Int64") if "epoch" in rows else pd.array([pd.NA] * len(rows), "Int64")
    return rows.assign(**columns, **place, epoch=epoch)


def preset_of(recipe: Recipe) -> str:
    """The preset that a recipe belongs to, which its name begins with."""
    return recipe.name.split("-")[0]


def initial_draw(recipe: Recipe) -> str:
    """What decides the initial weights beside the seed: networks of which it is equal start from the same ones."""
    # A convolution that a normalisation follows has no bias to draw.
    model, channels = recipe.model, len(DATA_SETS[recipe.data.dataset].mean)
    bias = "no bias" if model.norm != "none" else "bias"
    return f"{model.network} {model.width} {model.stem_kernel} {bias} {channels}"


def each_run(runs: Mapping[str, Iterable[Run]]) -> Iterator[tuple[str, Run]]:
    """Every run with its variant."""
    return ((variant, run) for variant, ones in runs.items() for run in ones)
