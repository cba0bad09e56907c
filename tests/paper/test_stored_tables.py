"""Tables measured beside runs: made once, of one version of the evaluation."""

import json

import pandas as pd
import pytest
from safetensors.torch import save_file

from hfclib.paper.stored_tables import publish_tables, stored_table
from hfclib.runs.store import WEIGHTS, Run, stored_weights
from hfclib.training.recipe import Recipe

RECIPE = Recipe("tiny").with_(width=2)


@pytest.fixture
def run(tmp_path):
    path = tmp_path / RECIPE.run_name(0)
    path.mkdir()
    save_file(stored_weights(RECIPE.build()), path / WEIGHTS)
    return Run(RECIPE, 0, None, None, {}, path)


def test_a_network_is_measured_once_and_again_by_another_version(run, published_folder, evaluation_version):
    measured = []

    def measure(run, variant):
        measured.append(variant)
        return pd.DataFrame({"part": ["all"], "accuracy": [1 / 3]})

    published_folder.mkdir()
    for version, count in ((1, 1), (1, 1), (2, 2), (1, 3)):
        evaluation_version(version)
        publish_tables("some", {"vanilla": [run]}, measure)
        assert len(measured) == count
        assert stored_table("some", run)["accuracy"].tolist() == [0.333333]
        origin = json.loads((published_folder / "some" / f"{run.path.name}.json").read_text())
        assert origin["evaluation"] == version
        assert list(origin) == ["weights", "sha256", "commit", "device", "torch", "evaluation", "seconds"]
