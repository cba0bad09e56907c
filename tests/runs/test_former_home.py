"""What was stored in the user's cache folder, where runs of one's own were kept at first, is still read."""

import shutil
from pathlib import Path

import platformdirs
import pytest

from hfclib._files import data_folder, home
from hfclib.data import DATA_SETS, DataError
from hfclib.paper.presets import fig4_recipes
from hfclib.runs.predictions import load_record
from hfclib.runs.store import find, folders

RECIPE = fig4_recipes("laptop")["vanilla"]
NAME = RECIPE.run_name(0)


@pytest.fixture
def former(monkeypatch, published_folder, user_home):
    """The cache folder, on a machine without published runs and without HFCLIB_HOME."""
    monkeypatch.delenv("HFCLIB_HOME")
    folder = Path(platformdirs.user_cache_dir("hfclib"))
    for part in (f"runs/{NAME}", "predictions"):
        (folder / part).mkdir(parents=True)
    return folder


def test_runs_and_predictions_in_the_cache_folder_are_found_after_those_at_home(former):
    published = data_folder() / "runs" / NAME
    shutil.copytree(published, former / "runs" / NAME, dirs_exist_ok=True)
    shutil.copy(data_folder() / "predictions" / f"{NAME}.safetensors", former / "predictions")
    run = find(RECIPE, 0)
    assert run.path == former / "runs" / NAME
    assert len(load_record("predictions", run)["x 0 raw running"]) == 10_000
    shutil.copytree(published, home() / "runs" / NAME)
    assert find(RECIPE, 0).path == home() / "runs" / NAME
    assert folders()[1:] == [home() / "runs", former / "runs"]


def test_archives_in_the_cache_folder_are_read(former):
    data = DATA_SETS["mnist"]
    source = data.sources[0]
    with pytest.raises(Exception, match=str(data.folder)):
        data._from_source(source, "train")
    (former / "mnist").mkdir()
    for name in source.files("train"):
        (former / "mnist" / name).write_bytes(b"damaged")
    with pytest.raises(DataError, match=str(former / "mnist")):
        data._from_source(source, "train")
    assert data.folder == home() / "mnist"
