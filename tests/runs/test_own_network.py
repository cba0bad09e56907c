"""A network of the user's, all the way: registered, trained, stored, found, listed, asked and drawn."""

import json
import math
import pickle
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from hfclib.batching import logits
from hfclib.charts import network_looks
from hfclib.cli import app
from hfclib.conditions import PAPER_RADII, Condition
from hfclib.models import REGISTERED, register_network
from hfclib.paper.all_networks import network_name
from hfclib.paper.fig4 import beside_paper, curves_figure, hfc_by_condition
from hfclib.paper.presets import base_recipe
from hfclib.paper.tables import gather, select
from hfclib.runs.collect import obtain, stored_runs
from hfclib.runs.images import held_out_set
from hfclib.runs.predictions import predictions_of
from hfclib.runs.store import RunError, find, load
from hfclib.runs.sweep import Job, sweep, train_job
from hfclib.runs.train import train_run
from hfclib.training.recipe import Recipe

SIZES = {"epochs": 1, "batch_size": 32, "train_images": 64, "eval_images": 8, "final_images": 40}


def toy(*, width: int, in_channels: int = 3) -> nn.Module:
    """A network with BatchNorm of its own: it takes no `norm`."""
    layers = [nn.Conv2d(in_channels, width, 5, 2), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * width, 10))


@pytest.fixture(autouse=True)
def _registered():
    register_network("toy")(toy)
    yield
    REGISTERED.pop("toy", None)


@pytest.fixture
def recipe():
    return Recipe("mine-toy").with_(network="toy", width=6, **SIZES)


@pytest.fixture
def radii(measured_at):
    measured_at(*PAPER_RADII)


def test_it_is_trained_stored_found_asked_and_drawn(radii, own_home, recipe):
    recipes = {"toy": recipe, "vanilla": Recipe("mine-vanilla").with_(width=2, **SIZES)}
    runs = obtain(recipes, [0], needs_weights=("toy",))
    assert stored_runs(recipes, [0])["toy"][0].path == own_home / "runs" / recipe.run_name(0)
    run = find(recipe, 0)
    assert run.recipe == recipe
    assert run.model()[0].weight.shape == (6, 3, 5, 5)

    assert run.batch_norm
    predicted = predictions_of(run, [Condition("x", bn_stats=stats) for stats in ("running", "batch")], progress=False)
    images = held_out_set(recipe)[0][: recipe.final_images]
    for stats in ("running", "batch"):
        expected = logits(run.model(), images, bn_stats=stats, amp=True).argmax(dim=1)
        assert torch.equal(predicted.on("x", bn_stats=stats), expected)

    shown = curves_figure(select(gather(runs), PAPER_RADII, "max", "batch"))
    assert [ax.get_title() for ax in shown.axes if ax.get_title()] == ["Vanilla", "toy"]
    (legend,) = hfc_by_condition(gather(runs, "final")).legends
    assert [text.get_text() for text in legend.get_texts()] == ["Vanilla", "toy", "chance (.10)"]
    table = beside_paper(gather(runs, "final"), PAPER_RADII, "raw", "running")
    assert table.loc["test", ("toy", "ours")] == f"{run.test_accuracy():.3f}".lstrip("0")
    assert network_name("toy") == "toy"
    looks = network_looks(["vanilla", "toy", "another"])
    assert len(set(looks.values())) == len({look.colour for look in looks.values()}) == 3


def test_a_process_that_does_not_know_it_lists_and_reads_its_runs(radii, tmp_path, recipe):
    trained = obtain({"toy": recipe}, [0])["toy"][0]
    del REGISTERED["toy"]
    listed = CliRunner().invoke(app, ["runs", "--store", str(trained.path.parent), "--json"])
    (entry,) = json.loads(listed.stdout)
    assert (entry["recipe"], entry["state"], entry["problem"]) == ("mine-toy", "stored", None)
    assert entry["accuracy"] == trained.test_accuracy()
    run = load(trained.path)
    assert run.final.equals(trained.final)
    assert run.recipe.hash == recipe.hash
    assert run.recipe.to_dict() == recipe.to_dict()
    with pytest.raises(RunError, match=r"of the network 'toy', which this process does not know.*register_network"):
        run.model()
    with pytest.raises(ValueError, match=r"expected network, one of resnet18, .* got 'toy'"):
        Recipe("a").with_(network="toy")


def test_another_network_of_the_same_name_gets_neither_its_run_nor_its_checkpoint(tmp_path, recipe, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train_run(recipe, seed=0, store=whole, progress=False)
    monkeypatch.setattr("hfclib.runs.train._final_rows", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train_run(recipe, seed=0, store=cut, progress=False)
    assert find(recipe, 0, whole)
    del REGISTERED["toy"]
    register_network("toy")(lambda *, width: nn.Sequential(*toy(width=width)[:2], nn.Tanh(), *toy(width=width)[3:]))
    for ask in (find, lambda recipe, seed, store: train_run(recipe, seed=seed, store=store, progress=False)):
        with pytest.raises(RunError, match=r"the network 'toy' was another when .*: give the network of now"):
            ask(recipe, 0, whole if ask is find else cut)


def test_another_number_of_logits_than_classes_is_refused_before_the_work(tmp_path, recipe):
    register_network("wide")(lambda *, width: nn.Sequential(nn.Flatten(), nn.Linear(3072, 300)))
    try:
        with pytest.raises(ValueError, match="expected 10 logits from wide, got 300"):
            train_run(recipe.with_(network="wide"), seed=0, store=tmp_path, progress=False)
    finally:
        REGISTERED.pop("wide")


class Stateful(nn.Flatten):
    """It keeps text beside its tensors."""

    def get_extra_state(self) -> str:
        return "text"


def test_a_state_that_is_no_tensor_is_refused_before_the_work(tmp_path, recipe):
    register_network("stateful")(lambda *, width: nn.Sequential(Stateful(), nn.Linear(3072, 10)))
    try:
        with pytest.raises(ValueError, match=r"tensors only from stateful, got 0\._extra_state"):
            train_run(recipe.with_(network="stateful"), seed=0, store=tmp_path, progress=False)
    finally:
        REGISTERED.pop("stateful")


def test_tied_weights_are_stored(tmp_path, recipe):
    def tied(*, width: int) -> nn.Module:
        network = toy(width=width)
        network.insert(0, nn.Conv2d(3, 3, 1))
        network.insert(1, nn.Conv2d(3, 3, 1))
        network[1].weight = network[0].weight
        return network

    register_network("tied")(tied)
    try:
        run = train_run(recipe.with_(network="tied"), seed=0, store=tmp_path, progress=False)
        assert torch.equal(run.model()[0].weight, run.model()[1].weight)
    finally:
        del REGISTERED["tied"]


class SharedNorm(nn.Module):
    """One BatchNorm under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 4, 3, 2)
        self.norm = self.again = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.again(self.second(self.norm(self.first(images)))).mean(dim=(2, 3)))


def test_a_shared_batchnorm_is_stored(tmp_path, recipe):
    register_network("shared")(lambda *, width: SharedNorm())
    try:
        run = train_run(recipe.with_(network="shared"), seed=0, store=str(tmp_path), progress=False)
        assert run.path.parent == tmp_path
        model = run.model()
        assert model.norm is model.again
        assert model.norm.running_mean.abs().sum() > 0
    finally:
        del REGISTERED["shared"]


class Unusual(nn.Sequential):
    """It has a mask of minus infinity, as transformers do, and draws noise in evaluation."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.register_buffer("mask", torch.full((2, 2), -math.inf).triu(1))

    def forward(self, images):
        return super().forward(images + torch.randn_like(images))


def test_a_network_with_an_infinite_mask_and_its_own_noise_is_stored_and_found(tmp_path, recipe):
    register_network("unusual")(lambda *, width: Unusual(*toy(width=width)))
    try:
        own = recipe.with_(network="unusual")
        run = train_run(own, seed=0, store=tmp_path, progress=False)
        assert run.model().mask[0, 1] == -math.inf
        assert find(own, 0, tmp_path).path == run.path
    finally:
        del REGISTERED["unusual"]


def test_a_worker_has_the_network_of_its_job(radii, tmp_path, recipe):
    sent = pickle.dumps(Job(recipe, 0, network=REGISTERED["toy"]))
    del REGISTERED["toy"]
    job = pickle.loads(sent)
    assert train_job(job, tmp_path, 1)[1].model()[0].weight.shape == (6, 3, 5, 5)


@pytest.mark.slow
def test_a_sweep_trains_it_in_processes_of_its_own(tmp_path, own_home, recipe):
    def local(*, width: int) -> nn.Module:  # of no module that a worker could import
        return toy(width=width)

    register_network("local")(local)
    try:
        report = sweep(
            {"local": Recipe("mine").with_(network="local", width=2, **SIZES)}, [0, 1], store=tmp_path, workers=2
        )
    finally:
        del REGISTERED["local"]
    assert (len(report.runs), report.failures) == (2, {})


# ---- names and settings


def test_bad_names_and_builders_are_refused():
    for name, build, message in (
        ("toy", lambda: None, "a network that is not taken, got 'toy'"),
        ("resnet18", toy, "not taken, got 'resnet18'"),
        ("a b", toy, "the name of a network, of letters.*got 'a b'"),
        (None, toy, "the name of a network, of letters.*got None"),
        ("deep", lambda depth: None, "a default of every argument but width, .*got none of 'depth' in the builder"),
        ("deep", lambda width, /: None, "got none of 'width'"),
    ):
        with pytest.raises(ValueError, match=message):
            register_network(name)(build)
    assert "deep" not in REGISTERED
    assert register_network("toy")(toy) is toy  # a cell of a notebook that is run twice


def test_the_nearest_name_is_said():
    for name, hint in (("resnet81", "did you mean resnet18"), ("zzz", "networks of yours join them")):
        with pytest.raises(ValueError, match=f"^refused recipe: expected network, one of .*got '{name}'; {hint}"):
            Recipe("a").with_(network=name)


def test_what_its_builder_does_not_take_is_refused():
    for field, value in {"norm": "batch", "dropout": 0.5, "stem_kernel": 5, "early_sizes": (16,)}.items():
        with pytest.raises(ValueError, match=f'expected {field}, .* with network "toy", got'):
            Recipe("a").with_(network="toy", **{field: value})
    register_network("any", any_size=True)(lambda norm, in_channels: nn.Identity())
    try:
        Recipe("a").with_(network="any", norm="batch", early_sizes=(16,))
        register_network("gray")(lambda: nn.Identity())
        with pytest.raises(ValueError, match="expected dataset, 'cifar10' with network \"gray\""):
            Recipe("a").with_(network="gray", dataset="mnist")
        register_network("none")(lambda: "a network")
        with pytest.raises(TypeError, match=r"an nn\.Module of the builder of 'none', got str"):
            Recipe("a").with_(network="none").build()
    finally:
        for name in ("any", "gray", "none"):
            REGISTERED.pop(name, None)


def test_it_is_built_as_the_recipe_says():
    network = Recipe("a").with_(network="toy", dataset="mnist", width=3).build()
    assert network[0].weight.shape == (3, 1, 5, 5)
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert Recipe("a").with_(network="toy").hash not in (Recipe("a").hash, Recipe("a").with_(network="lenet").hash)
    assert base_recipe("smoke").model.width == 4  # presets set it, also for networks that take none
