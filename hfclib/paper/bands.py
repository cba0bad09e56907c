"""Networks that are trained on one band: their recipes, and what Table 1 measures of them."""

import numpy as np
import pandas as pd

from hfclib.conditions import PAPER_RADII
from hfclib.paper.presets import Preset, base_recipe
from hfclib.paper.tables import drop_duplicate_conditions
from hfclib.training.recipe import Recipe

SCALINGS = {"range": "stretched to [0, 1]", "max": "divided by its maximum"}  # by `DataConfig.rescale`
TABLE1_MEASURES = {"training images": "train", "original test images": "test"}  # of Table 1, as in TABLE1_VALUES
OWN_BAND = "same band of test images"


def fig1_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """The networks of Table 1, each trained on one band: hfc4max to hfc16max, lfc4 to lfc16, hfc4 to hfc16.

    Source: paper, section 4.1 and Table 1. The text rescales a band to the standard pixel range (`DataConfig.rescale`,
    "range"), the authors' code divides it by its maximum ("max"), as the first four and the preset "authors" do, where
    hfc4 to hfc16 would be the first four again and are left out.
    """
    base = base_recipe(preset)
    by_text = "max" if preset == "authors" else "range"
    kinds = (("hfc", "max", "max"), ("lfc", by_text, ""), ("hfc", by_text, ""))[: 2 if preset == "authors" else 3]
    variants = {f"{band}{r}{end}": (band, r, scaling) for band, scaling, end in kinds for r in PAPER_RADII}
    return {
        variant: base.with_(name=f"{base.name}-{variant}", train_band=band, train_radius=radius, rescale=scaling)
        for variant, (band, radius, scaling) in variants.items()
    }


def band_results(final: pd.DataFrame) -> pd.DataFrame:
    """What Table 1 is made of: one row per network, seed and kind of images.

    Args:
        final: a table from `gather(runs, "final")` of networks of `fig1_recipes`.
    Returns:
        Rows of `final` with two more columns, "trained on" and "tested on": training images and test images of the
        network's own band, scaled as in training, and original test images.
    """
    rows = final[final["bn_stats"] == "running"]
    own = (rows["band"] == rows["train_band"]) & (rows["feed"] == rows["rescale"])
    own = (own & (rows["radius"] == rows["train_radius"])).astype(bool)
    tests = rows["split"] == "test"
    tested = np.select(
        [own & ~tests, (rows["band"] == "x") & tests, own & tests], [*TABLE1_MEASURES, OWN_BAND], default=""
    )
    trained = rows["train_band"].str.upper() + " " + rows["rescale"].map(SCALINGS)
    return drop_duplicate_conditions(rows.assign(**{"trained on": trained, "tested on": tested})[tested != ""])
