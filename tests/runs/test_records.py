"""hfclib.runs.predictions, records: tensors beside a run are whole, of its weights, and published ones come first."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import load_file, save_file

from hfclib.runs.predictions import load_record, store_record, weights_of
from hfclib.runs.store import Run, RunError, stored_weights
from hfclib.training.recipe import Recipe

RECIPE = Recipe("tiny").with_(width=2)
SOME = {"a b": torch.tensor([1, 2, 3], dtype=torch.uint8), "c": torch.tensor([[4, 5]], dtype=torch.uint8)}


@pytest.fixture
def run(tmp_path, published_folder):
    path = tmp_path / "store" / RECIPE.run_name(0)
    path.mkdir(parents=True)
    save_file(stored_weights(RECIPE.build()), path / "weights.safetensors")
    return Run(RECIPE, 0, None, None, {}, path)


@pytest.fixture
def mine(own_home, run):
    return own_home / "attacks" / f"{run.path.name}.safetensors"


def stored(run, tensors=SOME):
    store_record("attacks", run.path.name, tensors, weights_of(run.path))


def test_what_is_stored_comes_back(run, mine):
    assert load_record("attacks", run) == {}
    stored(run)
    found = load_record("attacks", run)
    assert found.keys() == SOME.keys()
    assert all(torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in SOME.items())
    assert [path.name for path in mine.parent.iterdir()] == [mine.name]
    assert load_record("predictions", run) == {}  # another kind


def test_what_is_stored_later_stands_beside_what_is_there(run, mine):
    stored(run)
    stored(run, {"c": torch.zeros(1), "d": torch.ones(1)})
    found = load_record("attacks", run)
    assert {name: tensor.tolist() for name, tensor in found.items()} == {"a b": [1, 2, 3], "c": [0], "d": [1]}
    assert [path.name for path in mine.parent.iterdir()] == [mine.name]  # no lock is left


def test_a_damaged_file_makes_way(run, mine):
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"nothing of the kind")
    stored(run)
    assert load_record("attacks", run).keys() == SOME.keys()


def test_several_at_a_time_lose_nothing_of_each_other(run, mine):
    def store_some(start):
        for number in range(start, start + 20):
            stored(run, {f"n {number}": torch.tensor([number])})

    with ThreadPoolExecutor(3) as pool:  # each takes the lock through a file handle of its own, as processes do
        list(pool.map(store_some, (0, 20, 40)))
    assert load_record("attacks", run).keys() == {f"n {number}" for number in range(60)}
    assert [path.name for path in mine.parent.iterdir()] == [mine.name]


def test_published_tensors_come_before_your_own(run, mine, tmp_path):
    stored(run)
    published = tmp_path / "data" / "attacks" / mine.name
    published.parent.mkdir(parents=True)
    mine.rename(published)
    stored(run, {"c": torch.zeros(1), "d": torch.ones(2)})
    found = load_record("attacks", run)
    assert {name: tensor.tolist() for name, tensor in found.items()} == {"a b": [1, 2, 3], "c": [[4, 5]], "d": [1, 1]}


def test_a_damaged_record_is_refused_by_name_and_kept(run, mine):
    stored(run)
    sound = mine.read_bytes()
    flipped = [sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :] for at in (0, 5, 60, 120, len(sound) - 1)]
    for content in (*flipped, sound[:-1], sound + b"\0", sound[:40], b"", b"\xff" * 8, b"nothing of the kind"):
        mine.write_bytes(content)
        with pytest.raises(RunError, match=rf"(?s){re.escape(str(mine))}.*delete it"):
            load_record("attacks", run)
        assert mine.read_bytes() == content


def test_what_another_training_left_is_not_used(run, mine):
    stored(run)
    weights = load_file(run.path / "weights.safetensors")
    weights["fc.weight"][0, 0] += 1
    save_file(weights, run.path / "weights.safetensors")
    assert load_record("attacks", run) == {}
    stored(run, {"c": torch.zeros(1)})
    assert list(load_record("attacks", run)) == ["c"]
