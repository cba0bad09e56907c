"""hfclib.runs: stored runs, kills and resumes, and a recount of the published runs."""

import json
import os
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

import hfclib
from hfclib import accuracy
from hfclib._files import data_folder
from hfclib.conditions import PAPER_RADII
from hfclib.data.cifar import to_float
from hfclib.frequency import split as split_at
from hfclib.metrics import CURVE_COLUMNS
from hfclib.models import ResNet
from hfclib.paper.networks import stored_measures
from hfclib.paper.registry import RECIPES
from hfclib.runs import train as job
from hfclib.runs.images import held_out_set
from hfclib.runs.predictions import predictions_of
from hfclib.runs.provenance import code_commit
from hfclib.runs.store import WEIGHTS, Run, find, folders, load, put_in_place, stored_seeds
from hfclib.runs.train import MEASURED, _after_epoch, _final_rows, train_run
from hfclib.training import loop
from hfclib.training.loop import Progress, TrainingError
from hfclib.training.recipe import RADII, Recipe
from tests.runs.tiny import FILES, TINY


def undisturbed(store, cifar, radii):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recipe, "radii", radii)
        return train_run(TINY, seed=0, store=store, progress=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cifar):
    """A run of TINY with seed 0, never disturbed; to be read only."""
    return undisturbed(tmp_path_factory.mktemp("store"), cifar, RADII)


@pytest.fixture(scope="module")
def trained_briefly(tmp_path_factory, cifar):
    """The same, measured at one radius only."""
    return undisturbed(tmp_path_factory.mktemp("store"), cifar, (4,))


@pytest.fixture(scope="module")
def trained_at_two_radii(tmp_path_factory, cifar):
    return undisturbed(tmp_path_factory.mktemp("store"), cifar, (4, 5))


@pytest.fixture
def one_radius(measured_at):
    measured_at(4)


@pytest.fixture
def copied(trained, tmp_path):
    """The same run in a folder of its own, to be damaged."""
    return shutil.copytree(trained.path, tmp_path / "copied" / trained.path.name)


def train(store, recipe=TINY, seed=0):
    return train_run(recipe, seed=seed, store=store, progress=False)


def same(run, other):
    """Equal weights and curves, byte for byte."""
    return all(
        (run.path / name).read_bytes() == (other.path / name).read_bytes() for name in FILES if name != "run.json"
    )


# ---- what is stored


class Unasked(Run):
    """A run whose network nobody may ask."""

    def model(self):
        pytest.fail("the network was built")


def test_what_the_network_answered_at_the_end_is_kept(cifar, one_radius, tmp_path, own_home):
    run = train(tmp_path)
    rows = run.final.query("split == 'test' and band != 'x'")
    wanted = [(row.band, row.radius, row.feed, row.bn_stats) for row in rows.itertuples()]
    assert len(wanted) == 10
    kept = predictions_of(Unasked(**vars(run)), wanted, progress=False)
    labels = cifar["test"][1][: TINY.final_images]
    for condition, row in zip(wanted, rows.itertuples(), strict=True):
        assert (kept.on(*condition) == labels).float().mean().item() == pytest.approx(row.accuracy, abs=1e-5)
    shutil.rmtree(own_home)
    again = predictions_of(run, wanted, progress=False)
    assert all(torch.equal(again.on(*condition), kept.on(*condition)) for condition in wanted)


def test_provenance(trained):
    known = trained.provenance
    assert set(known) == {"finished", "commits", "train_seconds", "eval_seconds", "device", "precision", "versions"}
    assert datetime.fromisoformat(known["finished"]).utcoffset().total_seconds() == 0
    assert known["commits"] == [code_commit()]
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|none", code_commit())
    assert known["versions"]["hfclib"] == hfclib.__version__
    assert known["versions"]["torch"] == torch.__version__
    assert known["device"]
    assert known["precision"] in ("bfloat16 autocast", "float32")


def test_commit_outside_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert code_commit(tmp_path) == "none"
    monkeypatch.setenv("PATH", str(tmp_path))  # and without git
    assert code_commit() == "none"


def test_parameters_are_stored_in_half_precision_and_averages_as_they_are(trained):
    weights, model = load_file(trained.path / "weights.safetensors"), TINY.build()
    parameters = {name for name, _ in model.named_parameters()}
    buffers = {name for name, _ in model.named_buffers() if "running" in name}
    assert {tensor.dtype for name, tensor in weights.items() if name in parameters} == {torch.float16}
    assert {tensor.dtype for name, tensor in weights.items() if name in buffers} == {torch.float32}
    assert weights.keys() == model.state_dict().keys()
    assert buffers


def test_the_loaded_network_is_ready_to_use(trained):
    model = trained.model()
    assert not any(module.training for module in model.modules())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    for name, tensor in load_file(trained.path / "weights.safetensors").items():
        assert torch.equal(model.state_dict()[name].float(), tensor.float())


def test_curves_hold_every_epoch_and_condition(trained):
    assert list(trained.curves.columns) == ["epoch", *CURVE_COLUMNS]
    assert list(trained.final.columns) == CURVE_COLUMNS
    assert trained.curves.groupby("epoch").size().to_dict() == {1: 80, 2: 80, 3: 80}
    assert len(trained.final) == 80
    for table in (trained.curves, trained.final):
        assert table["accuracy"].between(0, 1).all()
        assert set(table.loc[table["band"] != "x", "radius"]) == set(RADII)
        assert set(table.loc[(table["band"] != "x") & (table["feed"] == "max"), "radius"]) == set(PAPER_RADII)
    assert set(trained.curves["images"]) == {20}
    assert trained.final.groupby("split")["images"].unique().map(list).to_dict() == {"train": [100], "test": [30]}


def test_final_accuracies_are_those_of_the_stored_weights(trained, cifar):
    model = trained.model()
    for split, count in (("train", 100), ("test", 30)):
        images, labels = (part[:count] for part in cifar[split])
        for bn_stats in ("running", "batch"):
            rows = trained.final.query(f"split == '{split}' and band == 'x' and bn_stats == '{bn_stats}'")
            measured = accuracy(model, to_float(images), labels, bn_stats=bn_stats)
            assert rows["accuracy"].item() == pytest.approx(measured, abs=1e-6)
    assert trained.test_accuracy() == pytest.approx(accuracy(model, *_part(cifar["test"], 30)), abs=1e-6)


def _part(images_and_labels, count):
    images, labels = images_and_labels
    return to_float(images[:count]), labels[:count]


@pytest.mark.parametrize("labels", ["natural", "shuffled"])
def test_final_training_accuracy_of_a_large_set(no_bands, in_bf16, cifar, tmp_path, labels):
    """On the embedded images; but shuffled labels belong to positions in the whole set."""
    generator = torch.Generator().manual_seed(1)
    whole = torch.randint(0, 256, (6_000, 3, 32, 32), generator=generator, dtype=torch.uint8), torch.arange(6_000) % 7
    recipe = TINY.with_(train_images=6_000, labels=labels, train_bands=True)
    (tmp_path / "weights.safetensors").write_bytes(b"")
    model, fed = nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(12, 10)), []
    with model.register_forward_pre_hook(lambda _, given: fed.append((torch.is_autocast_enabled("cpu"), given[0]))):
        rows = _final_rows(recipe, model, whole, cifar["test"], tmp_path, progress=False)
    images, expected = cifar["train"] if labels == "natural" else (part[:5_000] for part in whole)
    images = to_float(images)
    in_float32 = torch.cat([batch for fast, batch in fed if not fast and len(batch) > 2])  # two are a check
    assert torch.equal(in_float32, torch.cat([images, to_float(cifar["test"][0][:30])]))
    measured = {(row["split"], row["band"], row["radius"]): (row["images"], row["accuracy"]) for row in rows}
    assert measured["train", "x", -1] == (5_000, pytest.approx(accuracy(model, images, expected)))
    lfc = split_at(images, 4)[0]
    assert measured["train", "lfc", 4] == (5_000, pytest.approx(accuracy(model, lfc, expected, amp=True)))
    assert measured["test", "x", -1][0] == 30


def test_a_run_that_measures_bands_of_training_images_is_stored_whole(one_radius, tmp_path):
    run = train(tmp_path, TINY.with_(epochs=1, train_bands=True, labels="shuffled"))
    for table in (run.curves, run.final):
        rows = table.query("split == 'train' and band != 'x'")
        assert len(rows) == 16
        assert set(rows["images"]) == {20 if table is run.curves else 100}
    assert 0 <= run.test_accuracy() <= 1


def test_training_again_gives_the_same_run_and_another_seed_another(trained_briefly, one_radius, tmp_path):
    assert same(train(tmp_path), trained_briefly)
    assert not same(train(tmp_path, seed=1), trained_briefly)


# ---- finding


def test_found_in_a_store_of_its_own(copied):
    assert find(TINY, 0, copied.parent).path == copied
    assert find(TINY, 1, copied.parent) is None
    assert find(TINY.with_(epochs=4), 0, copied.parent) is None
    assert find(TINY, 0) is None  # not looked for elsewhere


def test_published_runs_come_before_your_own(own_home, copied, published_folder):
    mine = shutil.copytree(copied, own_home / "runs" / copied.name)
    assert find(TINY, 0).path == mine
    first = shutil.copytree(copied, published_folder / "runs" / copied.name)
    assert find(TINY, 0).path == first
    for name in (TINY.run_name(12), f"{TINY.run_name(13)}.partial", TINY.with_(epochs=4).run_name(14), "TINY-x-15"):
        (own_home / "runs" / name).mkdir()
    assert stored_seeds(TINY, folders()) == [0, 12]
    assert stored_seeds(TINY, folders()[:1]) == [0]


def test_your_own_runs_go_to_your_home(one_radius, own_home):
    run = train(None, TINY.with_(epochs=1))
    assert run.path == own_home / "runs" / run.recipe.run_name(0)
    assert find(run.recipe, 0).path == run.path


# ---- training again, seeds


def test_a_stop_while_a_run_is_replaced_leaves_both(tmp_path, monkeypatch):
    new, run, moves, move = tmp_path / "run.partial", tmp_path / "run", [], os.replace
    for folder in (new, run):
        folder.mkdir()
        (folder / folder.name).touch()

    def stopping(*places):
        moves.append(places)
        if len(moves) == 2:
            raise KeyboardInterrupt
        move(*places)

    with monkeypatch.context() as patch:
        patch.setattr("hfclib.runs.store.os.replace", stopping)
        with pytest.raises(KeyboardInterrupt):
            put_in_place(new, run)
    assert {path.name for path in tmp_path.rglob("run*") if path.is_file()} == {"run", "run.partial"}
    put_in_place(new, run)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert [path.name for path in run.iterdir()] == ["run.partial"]


@pytest.mark.parametrize("there", [True, False])
def test_the_link_to_a_run_on_another_disk_is_replaced_and_that_run_stays(tmp_path, there):
    whole, run, elsewhere = (tmp_path / name for name in ("run.partial", "run", "disk"))
    if there:
        elsewhere.mkdir()
    run.symlink_to(elsewhere)
    for _ in range(2):
        whole.mkdir()
        put_in_place(whole, run)
        assert not run.is_symlink()
        assert {path.name for path in tmp_path.iterdir()} == ({"run", "disk"} if there else {"run"})
        assert run.is_dir()


def test_retraining_replaces_the_run_only_when_the_new_one_is_whole(one_radius, copied):
    marker = copied / "note.txt"
    marker.write_text("of the old run")
    with pytest.MonkeyPatch.context() as patch:
        interrupted(patch, job, "put_in_place", 1)  # which follows once everything of the new one is written
        with pytest.raises(KeyboardInterrupt):
            train(copied.parent)
    assert marker.exists()
    assert load(copied).path == copied
    run = train(copied.parent)
    assert run.path == copied
    assert sorted(path.name for path in copied.iterdir()) == FILES
    assert [path.name for path in copied.parent.iterdir()] == [copied.name]


@pytest.mark.parametrize("stored", [True, False])
def test_after_waiting_only_a_run_that_was_stored_meanwhile_is_taken(one_radius, copied, caplog, stored):
    """A process that trains a run again, and is stopped, leaves the old run."""
    before = (copied / "run.json").read_bytes()
    lock = FileLock(copied.with_name(copied.name + ".lock"))
    with ThreadPoolExecutor(1) as pool:
        with lock:
            waiting = pool.submit(train, copied.parent)
            while not waiting.done() and not any("waiting" in message for message in caplog.messages):
                time.sleep(0.01)
            if stored:
                (copied / "run.json").touch()
        assert waiting.result().path == copied
    assert ((copied / "run.json").read_bytes() == before) == stored  # else it is trained again


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"learning_rate": 1e20, "norm": "none"},
            r"can't be measured .*got NaN or infinity, or minus infinity only\): try a smaller learning_rate",
        ),
        ({"learning_rate": 1e5, "norm": "group"}, "too large to store: try a smaller learning_rate"),
    ],
)
def test_weights_too_large_are_told_and_not_stored(one_radius, tmp_path, changes, message):
    # One step: the loss before it is sound, and nobody looks at the loss after it.
    recipe = TINY.with_(epochs=1, train_images=32, schedule="constant", **changes)
    with pytest.raises(TrainingError, match=message):
        train(tmp_path, recipe)
    assert not (tmp_path / recipe.run_name(0)).exists()


def test_a_device_may_be_named(tmp_path):
    """On the meta device there are no numbers to train with."""
    for device in ("meta", torch.device("meta")):
        with pytest.raises(ValueError, match="the model fails on images"):
            train_run(TINY, seed=0, device=device, store=tmp_path, progress=False)


def test_bad_seed(tmp_path):
    for seed in (-1, 0.0, 1.5, True, "0", None, np.nan):
        with pytest.raises(ValueError, match="expected seed, a whole number of at least 0"):
            train(tmp_path / "store", seed=seed)
    assert not (tmp_path / "store").exists()


# ---- kills and resumes


def interrupted(monkeypatch, module, name, call):
    """Make the `call`-th use of a function stop the program."""
    function, left = getattr(module, name), [call]

    def stopping(*args, **options):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return function(*args, **options)

    monkeypatch.setattr(module, name, stopping)


STOPS = [  # a function, and at which of its calls the training is stopped
    (loop, "training_step", 9),
    (job, "save_checkpoint", 2),
    (job, "store_record", 1),
    (Path, "unlink", 2),
]
MORE_STOPS = [
    (loop, "curve_rows", 3),
    (os, "replace", 2),
    (job, "write", 1),
    (job, "_final_rows", 1),
    (job, "add_to_record", 1),
    (job, "write", 4),
    (job, "put_in_place", 1),
    (os, "replace", 9),
]


@pytest.mark.parametrize(
    ("module", "name", "call"), [*STOPS, *(pytest.param(*stop, marks=pytest.mark.slow) for stop in MORE_STOPS)]
)
def test_stopped_anywhere_and_run_again(trained_briefly, one_radius, tmp_path, module, name, call):
    store = tmp_path / "store"
    with pytest.MonkeyPatch.context() as patch:
        interrupted(patch, module, name, call)
        with pytest.raises(KeyboardInterrupt):
            train(store)
    found = find(TINY, 0, store)  # whole or not there
    assert found is None or same(found, trained_briefly)
    again = train(store)
    assert same(again, trained_briefly)
    assert [path.name for path in store.iterdir()] == [TINY.run_name(0)]


def test_the_time_left_counts_small_images_and_the_final_measurement():
    recipe = TINY.with_(mixup_alpha=0, epochs=4, early_sizes=(16, 16), eval_images=10, final_images=50)
    state = Progress(epoch=2, train_seconds=60, eval_seconds=20)
    # Two epochs of a quarter of the pixels took a minute: two whole ones take four. Ten seconds go by after each epoch,
    # and at the end five times that.
    said = _after_epoch(recipe, 0, state)
    assert said == f"tiny, seed 0: epoch 2 of 4, about {(240 + 20 + 50) / 60:.1f} minutes left"
    state = Progress(epoch=4, train_seconds=300, eval_seconds=40)
    assert _after_epoch(recipe, 0, state).endswith(f"about {50 / 60:.1f} minutes left")


@pytest.mark.parametrize("spoilt", [False, True])
def test_stopped_while_measuring_goes_on_at_that_radius(trained_at_two_radii, measured_at, tmp_path, own_home, spoilt):
    measured_at(4, 5)
    with pytest.MonkeyPatch.context() as patch:
        interrupted(patch, job, "curve_rows", 1 + 2)  # whole images, then radius by radius
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    kept = tmp_path / f"{TINY.run_name(0)}.partial" / MEASURED
    if spoilt:
        kept.write_bytes(kept.read_bytes()[:-1])
    asked = []
    hook = register_module_forward_pre_hook(  # of the networks, also of those that only check what they are given
        lambda module, given: asked.append(len(given[0])) if isinstance(module, ResNet) else None
    )
    with hook:
        again = train(tmp_path)
    assert same(again, trained_at_two_radii)
    whole = 4  # two sets of images, two kinds of statistics
    at_four, at_five = 2 + 8, 2  # the paper's radii have eight more conditions
    assert sum(count > 2 for count in asked) == whole + at_five + (at_four if spoilt else 0)


def test_a_resumed_run_names_the_code_of_every_sitting(one_radius, tmp_path, monkeypatch, caplog):
    git = tmp_path / "git"
    monkeypatch.setenv("PATH", str(tmp_path))

    def checked_out(commit):
        git.write_text(f'#!/bin/sh\nif [ "$1" = rev-parse ]; then echo {commit}; fi\n')
        git.chmod(0o755)

    checked_out("first")
    with pytest.MonkeyPatch.context() as patch:
        interrupted(patch, loop, "training_step", 6)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "store")
    checked_out("second")
    caplog.set_level("INFO")
    assert train(tmp_path / "store").provenance["commits"] == ["first", "second"]
    assert "tiny, seed 0, goes on after epoch 1, so far by other code (first)" in caplog.text


# ---- published runs


PUBLISHED = sorted(
    path for path in (data_folder() / "runs").glob("*") if path.suffix != ".partial"
)  # those two are trainings under way, which git leaves out
KNOWN = {
    recipe.run_name(seed): recipe
    for figure, preset in product(RECIPES, ("laptop", "narrow", "authors", "paper"))
    for recipe in RECIPES[figure](preset).values()
    for seed in range(10)
}


def test_published_runs_are_whole():
    for path in PUBLISHED:
        dropped = json.loads((path / "run.json").read_bytes()).get("weights_dropped", False)
        assert sorted(file.name for file in path.iterdir()) == (FILES[:-1] if dropped else FILES)
        run = load(path)
        assert run.recipe == KNOWN[path.name]
        assert path.name == run.recipe.run_name(run.seed)
        assert sorted(run.curves["epoch"].unique()) == list(range(1, run.recipe.epochs + 1))
        assert set(run.curves["images"]) == {run.recipe.eval_images}
        plain = run.final[~run.final["feed"].str.startswith("pgd")]
        assert set(plain.query("split == 'test'")["images"]) == {run.recipe.final_images}
        assert (len(plain) < len(run.final)) == (run.recipe.attack is not None)
        assert set(plain.query("split == 'train'")["images"]) == {5_000}
        assert not any(commit.endswith("-dirty") or commit == "none" for commit in run.provenance["commits"])


# Where predictions or attacks are stored, test_predictions.py and test_defense_published.py compare every answer.
ASKED_AGAIN = [
    path
    for path in PUBLISHED
    if (path / WEIGHTS).exists()
    and not any((data_folder() / kind / f"{path.name}.safetensors").exists() for kind in ("predictions", "attacks"))
]


@pytest.mark.slow
@pytest.mark.parametrize("path", ASKED_AGAIN, ids=lambda path: path.name)
def test_published_accuracy_is_that_of_the_weights(path, all_threads):
    run = load(path)
    model, (images, labels) = run.model(), held_out_set(run.recipe)
    table = stored_measures(run)
    if table is None:  # of images with a planted signal there is none
        assert abs(accuracy(model, images, labels) - run.test_accuracy()) <= 5 / 10_000
    else:
        plain = table.set_index("measure").loc["none"]
        count = int(plain["images"])
        measured = accuracy(model, images[:count], labels[:count])
        assert abs(measured - plain["accuracy"]) <= 0.004  # bfloat16 in the one or the other
        assert abs(measured - run.test_accuracy()) <= 0.04  # four standard errors of 2,000 images


def test_a_run_is_loaded_by_its_name_and_from_within_its_folder(monkeypatch):
    path = PUBLISHED[0]
    assert load(str(path)).path == path
    monkeypatch.chdir(path)
    assert load(".").recipe == load(path).recipe


def test_a_home_that_is_no_folder_is_told_before_the_training(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("HFCLIB_HOME", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"can't be used as a folder .*HFCLIB_HOME"):
        train_run(TINY, seed=0, store=tmp_path / "runs")
    assert not list(tmp_path.rglob("*.safetensors"))  # no checkpoint
