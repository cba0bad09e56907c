"""Runs of the chapters' networks without any training."""

import numpy as np
import pandas as pd
import pytest
import torch

from hfclib.conditions import Condition, band_conditions
from hfclib.metrics import CURVE_COLUMNS
from hfclib.paper.presets import fig4_recipes
from hfclib.runs.predictions import by_name, store_record, weights_of
from hfclib.runs.store import WEIGHTS, Run
from hfclib.training.recipe import RADII, Recipe


@pytest.fixture
def answered(tmp_path):
    """Stores predictions by condition as those of a run that was never trained, and returns the run."""

    def store(classes, *, seed=0, batch_norm=False, kind="predictions"):
        recipe = Recipe("answered")
        path = tmp_path / "answered" / recipe.run_name(seed)
        path.mkdir(parents=True, exist_ok=True)
        (path / WEIGHTS).write_bytes(b"weights")
        tensors = {Condition(*condition): tensor.to(torch.uint8) for condition, tensor in classes.items()}
        store_record(kind, path.name, by_name(tensors), weights_of(path))
        statistics = pd.DataFrame({"bn_stats": ["running", "batch"] if batch_norm else ["running"]})
        return Run(recipe, seed, statistics, statistics, {}, path)

    return store


@pytest.fixture
def random_run(tmp_path):
    """Makes a run of Fig. 4 whose every accuracy is random: what tables do with it must not depend on the values."""

    def make(variant: str, seed: int) -> Run:
        recipe = fig4_recipes("smoke")[variant]
        norm = recipe.model.norm == "batch"
        rng = np.random.default_rng([seed, len(variant)])
        whole = [("train", "x", -1, "raw"), ("test", "x", -1, "raw")]
        keys = [(*one, stats) for one in whole for stats in (("running", "batch") if norm else ("running",))]
        keys += [("test", *one) for one in band_conditions(RADII, norm)]
        final = pd.DataFrame([(*key, 200, rng.uniform()) for key in keys], columns=CURVE_COLUMNS)
        curves = pd.concat([final.assign(epoch=epoch) for epoch in (1, 2)], ignore_index=True)
        cost = {"train_seconds": 50, "eval_seconds": 10}
        provenance = {"commits": ["abcdef012345"], "device": "cpu, 2 thread(s)", **cost}
        return Run(recipe, seed, curves, final, provenance, tmp_path)

    return make


@pytest.fixture
def runs(random_run):
    return {variant: [random_run(variant, seed) for seed in (0, 1)] for variant in ("vanilla", "batchnorm", "dropout")}
