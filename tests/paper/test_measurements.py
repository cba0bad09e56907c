"""Stored tables in one form: no number stands for "none", and no column holds what another is for."""

from types import SimpleNamespace

import pandas as pd
import pytest

from hfclib.metrics import CURVE_COLUMNS
from hfclib.paper.measurements import MEASUREMENT_COLUMNS, measurements
from hfclib.paper.presets import base_recipe, fig4_recipes
from hfclib.paper.tables import cell_names
from hfclib.runs.collect import published_runs

STORED = [
    ("train", "x", -1, "raw", "running", 500, 0.9),
    ("test", "x", -1, "raw", "running", 500, 0.8),
    ("clean", "x", -1, "raw", "running", 500, 0.7),
    ("test", "lfc", 8, "max", "batch", 500, 0.6),
    ("test", "x", -1, "pgd20", "running", 100, 0.5),
    ("test", "x", -1, "pgd10", "running", 100, 0.4),
]


def test_each_column_has_one_meaning():
    run = SimpleNamespace(recipe=fig4_recipes("authors")["adversarial"], seed=3)
    rows = measurements(pd.DataFrame(STORED, columns=CURVE_COLUMNS), "against", run)
    assert set(rows) == set(MEASUREMENT_COLUMNS)
    assert rows[["preset", "variant", "seed"]].drop_duplicates().values.tolist() == [["authors", "against", 3]]
    assert rows["radius"].isna().tolist() == [True] * 3 + [False] + [True] * 2
    assert rows["radius"].dropna().tolist() == [8]
    assert rows["epoch"].isna().all()
    assert rows["split"].tolist() == ["train"] + ["test"] * 5
    assert rows["measure"].tolist() == ["accuracy"] * 2 + ["clean accuracy"] + ["accuracy"] * 3
    assert rows["feed"].tolist() == ["raw"] * 3 + ["max"] + ["raw"] * 2
    assert rows["attack"].tolist() == ["none"] * 4 + ["pgd20", "pgd10"]
    assert rows["eps"].tolist() == [0] * 4 + [8 / 255, 0.03]  # after training, and the recipe's own after each epoch
    assert rows["value"].tolist() == [row[-1] for row in STORED]
    assert cell_names(rows).tolist()[:4] == ["train", "test", "clean", "L8"]


def test_rows_after_each_epoch_keep_it():
    run = SimpleNamespace(recipe=base_recipe("smoke"), seed=0)
    stored = pd.DataFrame(STORED[:2], columns=CURVE_COLUMNS).assign(epoch=[1, 2])
    assert measurements(stored, "vanilla", run)["epoch"].tolist() == [1, 2]


@pytest.mark.parametrize("preset", ["laptop", "narrow", "authors"])
def test_the_preset_of_a_published_run_is_the_one_of_its_recipe(preset):
    published = published_runs(fig4_recipes(preset))
    assert published
    for variant, ones in published.items():
        for run in ones:
            assert set(measurements(run.final, variant, run)["preset"]) == {preset}
