"""Every kind of damage to every kind of stored file: found on load, with the file's name and what to do; no pickles."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import hfclib
from hfclib._files import sha256
from hfclib.runs.predictions import weights_of
from hfclib.runs.store import RunError, description, drop_weights, find, load, store_entries
from hfclib.runs.train import train_run
from hfclib.training.checkpoint import CheckpointError, epochs_done, restore_checkpoint, save_checkpoint
from hfclib.training.loop import Progress, make_optimizer
from hfclib.training.recipe import Recipe

FILES = ["run.json", "curves.csv", "final.csv", "weights.safetensors"]
TINY = Recipe("tiny").with_(
    width=2, norm="batch", epochs=2, batch_size=32, train_images=64, eval_images=5, final_images=5
)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cifar):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recipe, "radii", (4,))
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


@pytest.mark.parametrize("name", FILES[1:])
def test_no_flipped_bit_and_no_cut_goes_unnoticed(copied, name):
    sound = (copied / name).read_bytes()
    for content in (*flips(sound), *cuts(sound), sound + b"\n"):
        (copied / name).write_bytes(content)
        refused(copied, name)
        assert (copied / name).read_bytes() == content  # left as it is
    (copied / name).write_bytes(sound)
    load(copied)


def test_a_missing_file_is_named(copied):
    for name in FILES:
        content = (copied / name).read_bytes()
        (copied / name).unlink()
        refused(copied, name)
        (copied / name).write_bytes(content)


def test_without_its_weights_a_run_keeps_its_tables_and_says_so(copied):
    before, weights = load(copied), weights_of(copied)
    drop_weights(copied)
    assert not (copied / "weights.safetensors").exists()
    run = load(copied)
    assert run.final.equals(before.final)
    assert run.provenance == before.provenance
    assert weights_of(copied) == weights
    assert [entry.state for entry in store_entries([copied.parent])] == ["stored, no weights"]
    with pytest.raises(RunError, match=r"only tables are kept; `hfc train CHAPTER --retrain` trains it again"):
        run.model()
    (copied / "weights.safetensors").write_bytes(b"those of another training")
    refused(copied, "weights.safetensors")
    (copied / "weights.safetensors").unlink()
    (copied / "final.csv").write_bytes(b"")
    refused(copied, "final.csv")


def test_a_run_without_weights_yields_to_one_that_was_trained_again(trained, published_folder, own_home):
    first, own = (place / "runs" / trained.path.name for place in (published_folder, own_home))
    shutil.copytree(trained.path, first)
    drop_weights(first)
    assert find(trained.recipe, trained.seed).path == first
    shutil.copytree(trained.path, own)
    assert find(trained.recipe, trained.seed).path == own


def renew_checksums(folder):
    """Checksums as if what is in the folder now had been stored so."""
    known = json.loads((folder / "run.json").read_bytes())
    checksums = {name: sha256((folder / name).read_bytes()) for name in FILES[1:]}
    content = description(Recipe.from_dict(known["recipe"]), known["seed"], known["provenance"], checksums)
    (folder / "run.json").write_bytes(content)


def test_weights_of_the_wrong_shape(copied):
    sound = (copied / "weights.safetensors").read_bytes()
    for change, said in (
        (lambda weights: weights.update({"fc.weight": torch.zeros(10, 3)}), "size mismatch for fc.weight"),
        (lambda weights: weights.pop("fc.bias"), "fc.bias"),
        (lambda weights: weights.update({"more": torch.zeros(1)}), "more"),
    ):
        (copied / "weights.safetensors").write_bytes(sound)
        renew_checksums(copied)
        run, weights = load(copied), load_file(copied / "weights.safetensors")
        change(weights)
        save_file(weights, copied / "weights.safetensors")
        refused(copied, "weights.safetensors")
        renew_checksums(copied)
        for each in (run, load(copied)):
            with pytest.raises(RunError, match=rf"weights\.safetensors does not hold the weights of tiny .*{said}"):
                each.model()


def edited(folder, change):
    known = json.loads((folder / "run.json").read_bytes())
    change(known)
    (folder / "run.json").write_text(json.dumps(known))
    return refused(folder, "run.json")


def test_an_edited_recipe_or_seed_is_refused(copied):
    sound = (copied / "run.json").read_bytes()
    values = {"epochs": 30, "width": 4, "norm": "none", "learning_rate": 0.5, "final_images": 10_000}
    for field, value in values.items():
        (copied / "run.json").write_bytes(sound)
        assert "edited recipe or seed" in edited(
            copied, lambda known, field=field, value=value: known["recipe"].update({field: value})
        )
    for value in ("2", 1e400, -1):
        (copied / "run.json").write_bytes(sound)
        edited(copied, lambda known, value=value: known["recipe"].update(width=value))
    (copied / "run.json").write_bytes(sound)
    edited(copied, lambda known: known.update(seed=7))


def test_what_is_no_run_json_is_refused(copied):
    sound = (copied / "run.json").read_bytes()
    for content in (b"", b"\xff\xfe", b"[]", b"{}", sound[:-10]):
        (copied / "run.json").write_bytes(content)
        refused(copied, "run.json")
    for key in ("format", "recipe", "hash", "seed", "provenance", "sha256"):
        (copied / "run.json").write_bytes(sound)
        edited(copied, lambda known, key=key: known.pop(key))
    (copied / "run.json").write_bytes(sound)
    assert "format 99" in edited(copied, lambda known: known.update(format=99))
    (copied / "run.json").write_bytes(sound)
    said = edited(copied, lambda known: known["recipe"].update(ema=0.9, swa=True))
    assert "another version of hfclib (format 2, expected 2; new: ema, swa): use that version" in said


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


def test_a_checkpoint_holds_all_that_goes_on(tmp_path):
    path, state = tmp_path / "checkpoint.safetensors", Progress(2, [{"epoch": 1, "accuracy": 0.5}], 1.5, 0.25, ["abc"])
    first, second = parts(), parts()
    assert restore_checkpoint(path, *second) == Progress()  # there is none
    for model, optimizer, scheduler in (first, first):
        model(torch.rand(4, 3, 8, 8)).square().sum().backward()
        optimizer.step()
        scheduler.step()
    save_checkpoint(path, *first, state)
    assert restore_checkpoint(path, *second) == state
    assert second[2].get_last_lr() == first[2].get_last_lr()
    images = torch.rand(4, 3, 8, 8)
    for model, optimizer, _ in (first, second):
        optimizer.zero_grad()
        model(images).square().sum().backward()
        optimizer.step()
    for (name, one), other in zip(first[0].state_dict().items(), second[0].state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_no_flipped_bit_and_no_cut_of_a_checkpoint_goes_unnoticed(checkpoint):
    objects, sound = parts(), checkpoint.read_bytes()
    for content in (*flips(sound), *cuts(sound)):
        checkpoint.write_bytes(content)
        refused_checkpoint(checkpoint, objects)
        assert checkpoint.read_bytes() == content
        with pytest.raises(CheckpointError):
            epochs_done(checkpoint)


@pytest.mark.parametrize("error", [PermissionError("not yours"), torch.OutOfMemoryError("a busy GPU")])
def test_what_is_not_the_checkpoints_fault_is_not_called_damage(checkpoint, error):
    class Failing(nn.Module):
        def load_state_dict(self, *args):
            raise error

    _, *others = parts()
    with pytest.raises(type(error), match=str(error)):
        restore_checkpoint(checkpoint, Failing(), *others)


def test_a_checkpoint_of_another_run_is_refused(checkpoint, tmp_path):
    elsewhere = tmp_path / f"{TINY.run_name(1)}.partial" / checkpoint.name  # as if seed 0 were seed 1
    shutil.copytree(checkpoint.parent, elsewhere.parent)
    assert f"it belongs to {TINY.run_name(0)}" in refused_checkpoint(elsewhere, parts())


def test_a_checkpoint_of_the_wrong_shape_is_refused(checkpoint):
    save_checkpoint(checkpoint, *parts(TINY.with_(width=3)), Progress(epoch=1))
    refused_checkpoint(checkpoint, parts())


# ---- no pickle


def test_nothing_is_ever_unpickled():
    sources = [path for folder in ("hfclib", "benchmarks", "book") for path in (ROOT / folder).rglob("*.py")]
    assert Path(hfclib.__file__).resolve() in [path.resolve() for path in sources]
    for path in [*sources, *(ROOT / "notebooks").glob("*.ipynb")]:
        text = path.read_text()
        for call in re.findall(r"(?<!safetensors\.)torch\.load\([^)]*\)?", text):
            assert "weights_only=True" in call, f"{path}: {call}"
        assert not re.search(r"\b(import|from) (pickle|dill|cloudpickle)\b|allow_pickle=True|joblib\.load", text), path
