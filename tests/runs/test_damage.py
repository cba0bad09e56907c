"""Every kind of damage to every kind of stored file: found on load, with the file's name and what to do; no pickles."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save, save_file

import hfclib
from hfclib._files import parse_tensors, sha256
from hfclib.runs import train as job
from hfclib.runs.store import RunError, description, load, read_weights
from hfclib.runs.train import train_run
from hfclib.training import loop
from hfclib.training.checkpoint import CheckpointError, epochs_done, restore_checkpoint, save_checkpoint
from hfclib.training.loop import Progress, make_optimizer
from hfclib.training.recipe import Recipe

FILES = ["run.json", "curves.csv", "final.csv", "weights.safetensors"]
TINY = Recipe("tiny", width=2, norm="batch", epochs=2, batch_size=32, train_images=64, eval_images=5, final_images=5)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cifar):
    with pytest.MonkeyPatch.context() as patch:
        for module in (loop, job):
            patch.setattr(module, "embedded", cifar.__getitem__)
            patch.setattr(module, "RADII", (4,))
        return train_run(TINY, seed=0, store=tmp_path_factory.mktemp("store"), progress=False)


@pytest.fixture
def copied(trained, tmp_path):
    return shutil.copytree(trained.path, tmp_path / trained.path.name)


def flips(content):
    """The content with one bit flipped: of the first bytes, the last ones, and forty in between."""
    places = {*range(16), *range(16, len(content), max(1, len(content) // 40)), *range(len(content) - 4, len(content))}
    for place in sorted(places):
        yield content[:place] + bytes([content[place] ^ (1 << place % 8)]) + content[place + 1 :]


def cuts(content):
    yield from (content[:length] for length in (0, 1, 7, 8, 9, len(content) // 2, len(content) - 1))


def refused(folder, name):
    """What loading the run says: the damaged file's name, and what to do."""
    with pytest.raises(RunError, match=rf"(?s){re.escape(str(folder / name))}.*(train the run again)") as caught:
        load(folder)
    return str(caught.value)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [flips, cuts])
def test_no_flipped_bit_and_no_cut_goes_unnoticed(copied, name, damage):
    sound = (copied / name).read_bytes()
    for content in damage(sound):
        (copied / name).write_bytes(content)
        refused(copied, name)
        assert (copied / name).read_bytes() == content  # left as it is
    (copied / name).write_bytes(sound)
    load(copied)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copied, name):
    (copied / name).unlink()
    refused(copied, name)


@pytest.mark.parametrize("name", FILES)
def test_a_file_larger_than_it_can_be_is_not_read(copied, name):
    with open(copied / name, "r+b") as file:
        file.truncate(2**40)  # sparse: takes no room
    assert "bytes, expected at most" in refused(copied, name)


def reseal(folder):
    """Checksums and seal as if what is in the folder now had been stored so."""
    known = json.loads((folder / "run.json").read_bytes())
    checksums = {name: sha256((folder / name).read_bytes()) for name in FILES[1:]}
    content = description(Recipe(**known["recipe"]), known["seed"], known["provenance"], checksums)
    (folder / "run.json").write_bytes(content)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda weights: weights.update({"fc.weight": torch.zeros(10, 3)}), "fc.weight has shape"),
        (lambda weights: weights.update({"fc.weight": torch.full_like(weights["fc.weight"], torch.nan)}), "not finite"),
        (lambda weights: weights["norm1.running_var"].fill_(torch.inf), "not finite"),
        (lambda weights: weights.pop("fc.bias"), "fc.bias is missing"),
        (lambda weights: weights.update({"more": torch.zeros(1)}), "more is not expected"),
    ],
)
def test_weights_of_the_wrong_shape_or_that_are_no_numbers(copied, change, said):
    weights = load_file(copied / "weights.safetensors")
    change(weights)
    save_file(weights, copied / "weights.safetensors")
    reseal(copied)
    assert said in refused(copied, "weights.safetensors")


@pytest.mark.parametrize("name", ["curves.csv", "final.csv"])
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("accuracy", "accurcay", 1),
        lambda text: text.splitlines()[0] + "\n",
        lambda text: re.sub(r",[\d.]+\n", ",1.5\n", text, count=1),
        lambda text: re.sub(r",[\d.]+\n", ",nan\n", text, count=1),
        lambda text: re.sub(r",[\d.]+\n", ",high\n", text, count=1),
        lambda text: "\n".join(text.splitlines()[:3]) + "\n",
        lambda text: text.replace(",", ";"),
        lambda text: "\0" * 100,
    ],
)
def test_a_table_of_the_wrong_shape_or_with_what_is_no_accuracy(copied, name, change):
    text = (copied / name).read_text()
    changed = change(text)
    assert changed != text
    if name == "final.csv" and changed.count("\n") == 3 and "test,x" in changed:
        changed = "\n".join(line for line in changed.splitlines() if not line.startswith("test,x")) + "\n"
    (copied / name).write_text(changed)
    reseal(copied)
    assert "not the table that it should be" in refused(copied, name)


@pytest.mark.parametrize(
    ("field", "value"),
    [("epochs", 30), ("width", 4), ("width", 10**12), ("norm", "none"), ("width", "2"), ("epochs", 1e400)],
)
def test_an_edited_recipe_is_refused(copied, field, value):
    known = json.loads((copied / "run.json").read_bytes())
    known["recipe"][field] = value
    (copied / "run.json").write_text(json.dumps(known))
    refused(copied, "run.json")


@pytest.mark.parametrize("key", ["train_seconds", "device", "commits"])
def test_edited_provenance_is_refused(copied, key):
    known = json.loads((copied / "run.json").read_bytes())
    known["provenance"][key] = "better"
    (copied / "run.json").write_text(json.dumps(known, indent=2) + "\n")
    assert "changed after it was written" in refused(copied, "run.json")


def test_json_of_bottomless_depth_is_refused(copied):
    (copied / "run.json").write_text("[" * 100_000)
    refused(copied, "run.json")


def test_a_network_that_no_machine_holds_is_refused(tmp_path):
    recipe = replace(TINY, width=10**7)
    folder = tmp_path / recipe.run_name(0)
    folder.mkdir()
    for name in FILES[1:]:
        (folder / name).write_bytes(b"")
    checksums = {name: sha256(b"") for name in FILES[1:]}
    (folder / "run.json").write_bytes(description(recipe, 0, {}, checksums))
    with pytest.raises(RunError):
        read_weights(folder / "weights.safetensors", recipe)


@pytest.mark.parametrize("form", [1, 2])
def test_a_seal_can_not_be_left_out(copied, form):
    known = json.loads((copied / "run.json").read_bytes()) | {"format": form}
    del known["seal"]
    (copied / "run.json").write_text(json.dumps(known))
    refused(copied, "run.json")


# ---- checkpoints


def parts(recipe=TINY):
    model = recipe.build()
    optimizer, scheduler = make_optimizer(model, recipe, 20)
    model(torch.rand(4, 3, 8, 8)).square().sum().backward()
    optimizer.step()
    scheduler.step()
    return model, optimizer, scheduler


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / f"{TINY.run_name(0)}.partial" / "checkpoint.safetensors"
    path.parent.mkdir()
    save_checkpoint(path, *parts(), Progress(epoch=1))
    return path


def refused_checkpoint(path, objects):
    with pytest.raises(CheckpointError, match=rf"(?s){re.escape(str(path))} is damaged.*delete it") as caught:
        restore_checkpoint(path, *objects)
    return str(caught.value)


@pytest.mark.parametrize("damage", [flips, cuts])
def test_no_flipped_bit_and_no_cut_of_a_checkpoint_goes_unnoticed(checkpoint, damage):
    objects = parts()
    for content in damage(checkpoint.read_bytes()):
        checkpoint.write_bytes(content)
        refused_checkpoint(checkpoint, objects)
        with pytest.raises(CheckpointError):
            epochs_done(checkpoint)


def test_a_checkpoint_of_another_run_is_refused(checkpoint, tmp_path):
    elsewhere = tmp_path / f"{TINY.run_name(1)}.partial" / checkpoint.name  # as if seed 0 were seed 1
    shutil.copytree(checkpoint.parent, elsewhere.parent)
    assert f"it belongs to {TINY.run_name(0)}" in refused_checkpoint(elsewhere, parts())


def test_a_checkpoint_without_its_seal_is_refused(checkpoint):
    tensors, metadata = parse_tensors(checkpoint.read_bytes())
    del metadata["seal"]
    checkpoint.write_bytes(save(tensors, metadata))
    assert "older hfclib" in refused_checkpoint(checkpoint, parts())


def test_a_checkpoint_of_the_wrong_shape_is_refused(checkpoint):
    save_checkpoint(checkpoint, *parts(replace(TINY, width=3)), Progress(epoch=1))
    refused_checkpoint(checkpoint, parts())


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("of", ["weights", "moments"])
def test_a_checkpoint_of_no_numbers_is_refused(checkpoint, of, number):
    model, optimizer, scheduler = parts()
    weight = model.conv1.weight
    with torch.no_grad():
        (weight if of == "weights" else optimizer.state[weight]["exp_avg"])[0, 0, 0, 0] = number
    save_checkpoint(checkpoint, model, optimizer, scheduler, Progress(epoch=1))
    assert "not finite" in refused_checkpoint(checkpoint, parts())


def test_a_checkpoint_larger_than_it_can_be_is_not_read(checkpoint):
    with open(checkpoint, "r+b") as file:
        file.truncate(2**40)
    assert "expected at most" in refused_checkpoint(checkpoint, parts())


# ---- no pickle


def test_nothing_is_ever_unpickled():
    sources = [path for folder in ("hfclib", "benchmarks", "book") for path in (ROOT / folder).rglob("*.py")]
    assert Path(hfclib.__file__).resolve() in [path.resolve() for path in sources]
    for path in [*sources, *(ROOT / "notebooks").glob("*.ipynb")]:
        text = path.read_text()
        for call in re.findall(r"torch\.load\([^)]*\)?", text):
            assert "weights_only=True" in call, f"{path}: {call}"
        assert not re.search(r"\b(import|from) (pickle|dill|joblib|cloudpickle)\b|allow_pickle=True", text), path
