"""hfclib.training.adversarial: the images of a step by hand, what is recorded, and when training has collapsed."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hfclib.attacks.gradient import pgd
from hfclib.data.cifar import to_float
from hfclib.kernels import roughness, smoothness_penalty
from hfclib.metrics import CURVE_COLUMNS
from hfclib.runs.train import train_run, training_set
from hfclib.training import adversarial
from hfclib.training.adversarial import adversarial_images, collapsed, robust_rows
from hfclib.training.loop import (
    Progress,
    TrainingError,
    fit,
    fit_own,
    initial_model,
    make_optimizer,
    training_step,
)
from hfclib.training.recipe import AttackConfig, Recipe

ATTACK = AttackConfig("single_step", eps=8 / 255, alpha=10 / 255, steps=1)
TINY = Recipe("tiny").with_(
    width=2,
    epochs=2,
    batch_size=32,
    learning_rate=1e-3,
    train_images=70,
    eval_images=20,
    final_images=30,
    attack=ATTACK,
)


def trained(recipe, cifar, seed=0, **options):
    """A network of the recipe and the Progress of its training."""
    model = initial_model(recipe, seed)
    return model, fit_own(model, training_set(recipe), cifar["test"], recipe, seed=seed, progress=False, **options)


@pytest.fixture
def linear():
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 10, bias=False))
    network[1].weight.data = torch.randn(10, 192, generator=torch.Generator().manual_seed(0))
    return network


# ---- the images of a step


@pytest.mark.parametrize(("steps", "random_start"), [(3, True), (1, False)])
def test_the_images_of_a_step_by_hand(in_float32, linear, images, random_start, steps):
    recipe = Recipe("a", attack=AttackConfig("pgd", eps=0.05, alpha=0.03, steps=steps, random_start=random_start))
    labels = torch.arange(12) % 10
    made = adversarial_images(linear, images, labels, recipe, torch.Generator().manual_seed(1))
    expected = images
    if random_start:
        drawn = torch.rand(12, 8, 8, 3, generator=torch.Generator().manual_seed(1)).permute(0, 3, 1, 2)
        expected = (images + 0.05 * (2 * drawn - 1)).clamp(0, 1)
    for _ in range(steps):
        # The gradient of a linear network's cross-entropy: the weights' mean under the answers, less the label's.
        surprise = linear(expected).detach().softmax(dim=1) - F.one_hot(labels, 10)
        gradient = (surprise @ linear[1].weight.detach()).view(12, 3, 8, 8)
        expected = (images + (expected + 0.03 * gradient.sign() - images).clamp(-0.05, 0.05)).clamp(0, 1)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-6)
    assert not made.requires_grad
    assert (made - images).abs().max() <= 0.05 + 1e-6
    assert all(parameter.grad is None for parameter in linear.parameters())


def test_other_recipes_are_fed_the_images_and_draw_nothing(linear, images):
    generator = torch.Generator().manual_seed(1)
    assert adversarial_images(linear, images, torch.arange(12) % 10, Recipe("a"), generator) is images
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(1).get_state())


def test_the_attacked_network_is_the_one_in_training_mode(images):
    """BatchNorm normalises by the batch and takes the attack's pass into its running averages."""
    norm = nn.BatchNorm2d(3)
    network = nn.Sequential(norm, nn.Flatten(), nn.Linear(192, 10)).train()
    adversarial_images(network, images, torch.arange(12) % 10, TINY, torch.Generator())
    assert norm.num_batches_tracked == 1
    assert network.training


# ---- in the training loop


def test_it_repeats_itself_and_learns_something_else(no_bands, cifar):
    attack = replace(ATTACK, method="pgd", steps=2)
    recipe = TINY.with_(augment=True, dropout=0.2, norm="batch", attack=attack)
    smaller = recipe.with_(attack=replace(attack, eps=attack.eps / 2))
    (one, state), (again, same), (other, _) = (trained(each, cifar) for each in (recipe, recipe, smaller))
    weights = [torch.cat([tensor.flatten() for tensor in model.parameters()]) for model in (one, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert state.rows == same.rows
    assert not torch.equal(weights[0], weights[2])


def test_each_epoch_records_the_accuracy_under_pgd(no_bands, cifar):
    model, state = trained(TINY, cifar)
    rows = [row for row in state.rows if row["feed"] == "pgd10"]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert all(set(row) == {"epoch", *CURVE_COLUMNS} for row in rows)
    assert {(row["split"], row["band"], row["radius"], row["bn_stats"], row["images"]) for row in rows} == {
        ("test", "x", -1, "running", 20)
    }
    images, labels = to_float(cifar["test"][0][:20]), cifar["test"][1][:20]
    assert rows[-1]["accuracy"] == robust_rows(model, images, labels, TINY)[0]["accuracy"]
    assert robust_rows(model, images, labels, Recipe("a")) == []


@pytest.mark.parametrize("after_training", [False, True])
def test_robustness_is_measured_as_its_row_says(in_float32, linear, images, after_training):
    """By the attack of its row, whose images are numbered among those that are correct without it."""
    settings = {"eps": 0.004, "alpha": 0.001, "steps": 10}
    if after_training:
        settings = {"eps": 8 / 255, "alpha": 2 / 255, "steps": 20}
        linear[1].weight.data[0] += 0.2  # else it is fooled everywhere
    labels = linear(images).argmax(dim=1)
    labels[0] = (labels[0] + 1) % 10
    recipe = TINY.with_(attack=replace(ATTACK, eps=0.004))
    (row,) = robust_rows(linear, images, labels, recipe, after_training=after_training)
    assert [row] == robust_rows(linear, images, labels, recipe, after_training=after_training)
    exact = pgd(linear, images[1:], labels[1:], seed=0, **settings)
    assert row["accuracy"] == pytest.approx((linear(exact).argmax(dim=1) == labels[1:]).sum().item() / 12)
    assert 0 < row["accuracy"] < 1
    assert (row["feed"], row["images"]) == (f"pgd{settings['steps']}", 12)


def test_only_robustness_during_training_is_measured_in_bfloat16(in_bf16, linear, images):
    fast = []
    linear.register_forward_pre_hook(lambda *_: fast.append(torch.is_autocast_enabled("cpu")))
    labels = linear(images).argmax(dim=1)
    for after_training in (False, True):
        fast.clear()
        robust_rows(linear, images, labels, TINY, after_training=after_training)
        assert any(fast) != after_training


def test_a_run_ends_with_its_robust_accuracy_and_its_accuracy_is_not_that(no_bands, tmp_path, cifar, monkeypatch):
    assert adversarial.FINAL_IMAGES == 1_000
    monkeypatch.setattr(adversarial, "FINAL_IMAGES", 100)
    run = train_run(TINY.with_(final_images=120), seed=0, store=tmp_path, progress=False)
    images, labels = to_float(cifar["test"][0][:120]), cifar["test"][1][:120]
    (row,) = run.final.query("feed == 'pgd20'").to_dict("records")
    assert row["images"] == 100
    (expected,) = robust_rows(run.model(), images, labels, TINY, after_training=True)
    assert row["accuracy"] == pytest.approx(expected["accuracy"], abs=1e-5)
    whole = run.final.query("split == 'test' and band == 'x' and feed == 'raw'")["accuracy"].item()
    assert run.test_accuracy() == whole


# ---- catastrophic overfitting


def curve(*accuracies):
    return [
        row
        for accuracy in accuracies
        for row in ({"feed": "raw", "accuracy": 0.9}, {"feed": "pgd10", "accuracy": accuracy})
    ]


def test_collapse_is_a_loss_to_pgd_alone():
    for accuracies, own, expected in (
        ([], 0.9, False),
        ([0.1, 0.2, 0.3], 0.4, False),
        ([0.1, 0.3, 0.11], 0.9, False),  # a dip, but above a third
        ([0.1, 0.3, 0.09], 0.9, True),
        ([0.3, 0.0, 0.29], 0.9, False),  # it has recovered
        ([0.1, 0.3, 0.05], 0.25, False),  # it lost its own attack too: another fault
        ([0.19, 0.0], 0.9, False),  # too little was learnt to be lost
        ([0.2, 0.0], 0.9, True),
    ):
        assert collapsed(curve(*accuracies), own) == expected, accuracies


@pytest.mark.parametrize("best", [0.5, 0.1])
def test_a_collapse_stops_the_training_before_its_checkpoint(best):
    """The network reads the class off the brightest channel; its own attack makes a step of nearly nothing, and PGD
    fools it everywhere. In the first epoch, which is restored, PGD left `best`."""
    labels, stored = torch.arange(30) % 3, []
    images = torch.full((30, 3, 8, 8), 0.5)
    images[torch.arange(30), labels] += 0.05
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    model[2].weight.data = 100 * torch.eye(3)
    attack = AttackConfig("pgd", eps=0.2, alpha=1e-6, steps=1, random_start=False)
    recipe = Recipe("tiny", attack=attack, eval_images=30).with_(epochs=2, learning_rate=1e-6)

    def restore(*_):
        return Progress(epoch=1, rows=curve(best))

    def checkpoint(*objects):
        stored.append(objects[3].epoch)

    options = {"seed": 3, "restore": restore, "checkpoint": checkpoint, "progress": False}
    said = r"tiny, seed 3, is robust to its own attack only from epoch 2 on: accuracy 1.000 under it, 0.000 under PGD"
    with pytest.raises(TrainingError, match=said) if best == 0.5 else nullcontext():
        fit(model, (images, labels), (images, labels), recipe, **options)
    assert stored == ([] if best == 0.5 else [2])


# ---- the penalty


def test_the_penalty_is_in_the_loss(in_float32, images):
    recipe = Recipe("a").with_(width=2, smoothness_penalty=3)
    losses = []
    for each in (recipe, recipe.with_(smoothness_penalty=0)):
        torch.manual_seed(0)
        model, labels = each.build(), torch.arange(12) % 10
        optimizer, _ = make_optimizer(model, each, 3)
        penalty = smoothness_penalty(model.conv1.weight).item()
        losses.append(training_step(model, images, labels, each, optimizer, rng=None, generator=torch.Generator())[0])
    assert (losses[0] - losses[1]).item() == pytest.approx(3 * penalty, rel=1e-4)


def test_a_penalised_training_has_smoother_kernels(no_bands, cifar):
    plain = Recipe("a").with_(width=2, epochs=8, batch_size=16, learning_rate=1e-2, train_images=64, eval_images=20)
    rough, smooth = (
        roughness(trained(plain.with_(smoothness_penalty=weight), cifar)[0].conv1.weight) for weight in (0, 100)
    )
    assert smooth.mean() < 0.8 * rough.mean()
