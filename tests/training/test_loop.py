"""hfclib.training.loop: it learns, mixes as the formula says, repeats itself, and stops at a loss that is no number."""

import math
from contextlib import nullcontext
from functools import partial
from itertools import chain
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, SequentialSampler

import hfclib
from hfclib import accuracy, split
from hfclib.conditions import PAPER_RADII
from hfclib.data import DataSet, to_float
from hfclib.metrics import CURVE_COLUMNS
from hfclib.runs.images import SHUFFLE_SEED, training_set
from hfclib.training.checkpoint import restore_checkpoint, save_checkpoint
from hfclib.training.loop import (
    Progress,
    TrainingError,
    _batches,
    _measured_radii,
    as_trained,
    fit,
    fit_own,
    initial_model,
    make_optimizer,
    training_step,
)
from hfclib.training.recipe import AttackConfig, Optimizer, Recipe

TINY = Recipe("tiny").with_(width=2, epochs=2, batch_size=32, learning_rate=1e-3, train_images=70, eval_images=20)
# Everything that draws random numbers at once.
RANDOM = TINY.with_(name="random", norm="batch", dropout=0.5, mixup_alpha=0.5, augment=True, schedule="one_cycle")
SMALLER = RANDOM.with_(name="smaller", epochs=3, early_sizes=(16, 24), label_smoothing=0.1)
ATTACKED = RANDOM.with_(
    name="attacked",
    mixup_alpha=0,
    attack=AttackConfig("pgd", eps=0.03, alpha=0.02, steps=2),
    smoothness_penalty=1,
)


@pytest.fixture
def train(cifar):
    """Train a recipe from its initial network: (model, Progress)."""

    def trained(recipe, seed=0, **options):
        model = initial_model(recipe, seed)
        options = {"progress": False, **options}
        return model, fit_own(model, training_set(recipe), cifar["test"], recipe, seed=seed, **options)

    return trained


@pytest.fixture
def trained_on(train):
    """Train a recipe: (the batches that its network was fed in training mode, Progress)."""

    def trained(recipe):
        fed = []

        def observe(model, *_):
            model.register_forward_pre_hook(lambda module, given: fed.append(given[0]) if module.training else None)
            return Progress()

        return fed, train(recipe, restore=observe)[1]

    return trained


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 8, "schedule": "one_cycle", "learning_rate": 2e-3},
        pytest.param(
            {"network": "resnet32", "norm": "batch", "rescale": "max", "epochs": 60},
            marks=pytest.mark.slow,
            id="resnet32",
        ),
    ],
)
def test_eight_images_are_learnt(no_bands, changes, train):
    options = {"epochs": 80, "batch_size": 8, "learning_rate": 1e-3, "train_images": 8, "eval_images": 8}
    _, state = train(Recipe("overfit").with_(**options | changes))
    accuracies = [row["accuracy"] for row in state.rows if (row["split"], row["bn_stats"]) == ("train", "running")]
    assert accuracies[0] < 1
    assert accuracies[-1] == 1


def test_initial_is_where_a_training_starts(no_bands, train):
    recipe, start = RANDOM, []

    def restore(model, *others):
        start.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return Progress()

    state = torch.get_rng_state()
    for seed in (3, 4):
        expected = initial_model(recipe, seed).state_dict()
        model, _ = train(recipe, seed, restore=restore)
        assert all(torch.equal(start[-1][name], tensor) for name, tensor in expected.items())
        assert not torch.equal(model.conv1.weight, start[-1]["conv1.weight"])
    assert not torch.equal(start[0]["conv1.weight"], start[1]["conv1.weight"])
    assert torch.equal(torch.get_rng_state(), state)


# ---- mix-up


class Recorder(nn.Module):
    """A linear network that keeps what it was given."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(192, 10)

    def forward(self, images):
        self.given = images
        return self.linear(images.flatten(1))


@pytest.fixture
def loss_of(in_float32):
    """The loss and the logits of a step that changes no weight, in full precision."""

    def step(model, images, labels, recipe, rng=None):
        still, generator = torch.optim.SGD(model.parameters(), lr=0.0), torch.Generator().manual_seed(4)
        rng = rng or np.random.default_rng(3)
        return training_step(model, images, labels, recipe, still, rng=rng, generator=generator)

    return step


def test_mixup_by_hand(images, loss_of):
    alpha = 0.5
    model, labels = Recorder(), torch.arange(12) % 10
    loss, logits = loss_of(model, images, labels, Recipe("a").with_(mixup_alpha=alpha))
    share = np.random.default_rng(3).beta(alpha, alpha)
    partner = torch.randperm(12, generator=torch.Generator().manual_seed(4)).tolist()
    mixed = torch.stack([share * images[i] + (1 - share) * images[partner[i]] for i in range(12)])
    torch.testing.assert_close(model.given, mixed)
    expected = 0.0
    for i, row in enumerate(logits.double()):
        surprise = row.logsumexp(0) - row
        expected += (share * surprise[labels[i]] + (1 - share) * surprise[labels[partner[i]]]).item() / 12
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_without_mixup_images_are_fed_as_they_are(images, loss_of):
    model, labels = Recorder(), torch.arange(12) % 10
    rng = np.random.default_rng(3)
    loss, _ = loss_of(model, images, labels, Recipe("a"), rng)
    assert model.given is images
    torch.testing.assert_close(loss, F.cross_entropy(model.linear(images.flatten(1)), labels))
    assert rng.random() == np.random.default_rng(3).random()  # nothing was drawn


def test_labels_are_smoothed_by_hand(images, loss_of):
    model, labels = Recorder(), torch.arange(12) % 10
    recipe = Recipe("a").with_(label_smoothing=0.1)
    loss, logits = loss_of(model, images, labels, recipe)
    target = torch.full((12, 10), 0.01).scatter_(1, labels[:, None], 0.91)
    torch.testing.assert_close(loss, -(target * logits.log_softmax(1)).sum(1).mean())
    mixed = recipe.with_(mixup_alpha=0.5)
    losses = [loss_of(model, images, labels, mixed.with_(label_smoothing=share))[0] for share in (0.0, 0.1)]
    even = -model.linear(model.given.flatten(1)).log_softmax(1).mean()
    torch.testing.assert_close(losses[1], 0.9 * losses[0] + 0.1 * even)


# ---- steps, schedule, training set


def test_a_step_is_a_step_of_adam(in_float32, images):
    recipe, labels = Recipe("a").with_(learning_rate=0.01), torch.arange(12) % 10
    model = Recorder()
    before = model.linear.weight.detach().clone()
    optimizer, _ = make_optimizer(model, recipe, 3)
    loss, logits = training_step(
        model, images, labels, recipe, optimizer, rng=np.random.default_rng(0), generator=torch.Generator()
    )
    assert not loss.requires_grad
    assert not logits.requires_grad
    # Adam's first step moves every weight by the learning rate against the sign of its gradient.
    gradient = model.linear.weight.grad
    clear = gradient.abs() > 1e-4
    assert clear.float().mean() > 0.5
    torch.testing.assert_close(
        (model.linear.weight.detach() - before)[clear], -0.01 * gradient.sign()[clear], rtol=1e-3, atol=1e-6
    )


def rates(recipe, steps):
    optimizer, scheduler = make_optimizer(nn.Linear(2, 2), recipe, steps)
    for _ in range(steps):
        yield optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "sgd_plain"])
def test_optimizers_are_fused_where_the_device_has_that(name):
    recipe = Recipe("a").with_(algorithm=name)
    assert make_optimizer(nn.Linear(2, 2), recipe, 3)[0].defaults["fused"]
    assert not make_optimizer(nn.Linear(2, 2, device="meta"), recipe, 3)[0].defaults["fused"]


def test_constant_rate():
    assert set(rates(Recipe("a").with_(learning_rate=0.02), 30)) == {0.02}


def test_one_cycle_rises_for_a_fifth_and_then_falls_to_nearly_nothing():
    values = list(rates(Recipe("a").with_(learning_rate=0.02, schedule="one_cycle"), 50))
    peak = int(np.argmax(values))
    assert values[peak] == pytest.approx(0.02)
    assert peak == 9
    assert values[: peak + 1] == sorted(values[: peak + 1])
    assert values[peak:] == sorted(values[peak:], reverse=True)
    assert values[0] < 0.02 / 20
    assert values[-1] < 0.02 / 1000


def test_so_short_a_one_cycle_is_no_error():
    for steps in (1, 2, 5, 9, 10, 11):
        assert all(
            0 < rate <= 0.02 for rate in rates(Recipe("a").with_(learning_rate=0.02, schedule="one_cycle"), steps)
        )


@pytest.fixture
def loaded_whole(monkeypatch):
    """Sets the full training set of every data set; until then it can't be had."""
    full = {}
    monkeypatch.setattr(DataSet, "load", lambda data, split, *, progress: full[split])
    return lambda images, labels: full.update(train=(images, labels))


def test_training_set_is_the_first_so_many(cifar, loaded_whole):
    images, labels = training_set(TINY.with_(train_images=70))
    assert torch.equal(images, cifar["train"][0][:70])
    assert torch.equal(labels, cifar["train"][1][:70])
    assert len(training_set(TINY.with_(train_images=5_000))[1]) == 5_000
    loaded_whole(*cifar["train"])
    with pytest.raises(ValueError, match="train_images, at most 5,000, all of CIFAR-10, got 60,000"):
        training_set(TINY.with_(train_images=60_000))


def test_shuffled_labels_are_the_natural_ones_in_another_order_that_does_not_change(cifar):
    shuffled = TINY.with_(train_images=5_000, labels="shuffled")
    images, labels = training_set(shuffled)
    assert torch.equal(images, cifar["train"][0])
    assert labels.bincount().tolist() == [500] * 10
    assert 0.08 < (labels == cifar["train"][1]).float().mean() < 0.12
    order = np.random.default_rng(SHUFFLE_SEED).permutation(5_000)
    assert torch.equal(labels, cifar["train"][1][order])
    assert torch.equal(training_set(shuffled)[1], labels)


def test_more_than_the_embedded_images_come_from_the_full_set(loaded_whole):
    loaded_whole(torch.zeros(6_000, 3, 32, 32, dtype=torch.uint8), torch.arange(6_000))
    images, labels = training_set(TINY.with_(train_images=5_001))
    assert images.shape == (5_001, 3, 32, 32)
    assert labels[-1] == 5_000


# ---- repeating itself


def test_a_training_neither_reads_nor_changes_the_global_random_state(no_bands, train):
    torch.manual_seed(1)
    first, _ = train(RANDOM)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    other, _ = train(RANDOM)
    assert equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_epochs_differ(no_bands, trained_on, cifar):
    fed, _ = trained_on(TINY)
    known = cifar["train"][0][:70].flatten(1).float() / 255
    order = torch.cdist(torch.cat(fed).flatten(1), known).argmin(dim=1).tolist()
    first, second = order[:70], order[70:]
    assert sorted(first) == sorted(second) == list(range(70))
    assert first != second


def test_early_epochs_train_on_smaller_images(no_bands, trained_on):
    fed, state = trained_on(TINY.with_(epochs=3, early_sizes=(8, 20)))
    sizes = [tuple(images.shape[2:]) for images in fed]
    assert sizes == [(8, 8)] * 3 + [(20, 20)] * 3 + [(32, 32)] * 3
    assert {row["images"] for row in state.rows} == {TINY.eval_images}


@pytest.mark.parametrize(
    ("base", "stop"),
    [(SMALLER, 1), (ATTACKED, 1)],
)
def test_going_on_after_an_epoch_ends_in_the_same_weights(no_bands, base, stop, train):
    recipe, kept = base.with_(epochs=3), {}
    expected, state = train(recipe)

    def checkpoint(model, optimizer, scheduler, progress):
        if progress.epoch == stop:
            kept.update(
                model={name: t.clone() for name, t in model.state_dict().items()},
                optimizer={k: dict(v) for k, v in optimizer.state_dict().items() if k == "state"},
                scheduler=scheduler.state_dict(),
                rows=list(progress.rows),
            )
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, checkpoint=checkpoint)

    def restore(model, optimizer, scheduler):
        model.load_state_dict(kept["model"])
        for index, parameter in enumerate(model.parameters()):
            optimizer.state[parameter] = kept["optimizer"]["state"][index]
        scheduler.load_state_dict(kept["scheduler"])
        optimizer.param_groups[0]["lr"] = scheduler.get_last_lr()[0]
        return Progress(epoch=stop, rows=kept["rows"])

    resumed, again = train(recipe, restore=restore)
    assert equal(resumed, expected)
    assert again.rows == state.rows


@pytest.mark.parametrize("optimizer", get_args(Optimizer))
def test_a_training_goes_on_from_its_checkpoint_with_any_optimizer(no_bands, tmp_path, optimizer, train):
    recipe = TINY.with_(algorithm=optimizer, epochs=3, schedule="one_cycle", norm="batch", learning_rate=0.01)
    path, starts = tmp_path / "run" / "checkpoint.safetensors", []
    path.parent.mkdir()
    expected, state = train(recipe)

    def stop(*objects):
        save_checkpoint(path, *objects)
        raise KeyboardInterrupt

    def restore(model, optimizer, scheduler):
        progress = restore_checkpoint(path, model, optimizer, scheduler)
        starts.append(progress.epoch)
        return progress

    for _ in range(2):  # the second goes on from what was itself restored
        with pytest.raises(KeyboardInterrupt):
            train(recipe, restore=restore, checkpoint=stop)
    resumed, again = train(recipe, restore=restore)
    assert starts == [0, 1, 2]
    assert equal(resumed, expected)
    assert again.rows == state.rows


def test_another_training_does_not_go_on_from_a_checkpoint(no_bands, tmp_path, train):
    path = tmp_path / "run" / "checkpoint.safetensors"
    path.parent.mkdir()
    with_checkpoint = {
        "restore": partial(restore_checkpoint, path),
        "checkpoint": partial(save_checkpoint, path),
    }
    train(TINY.with_(epochs=2), **with_checkpoint)
    for change in ({"learning_rate": 1e-5}, {"algorithm": "adagrad"}, {"schedule": "one_cycle"}):
        with pytest.raises(ValueError, match="expected the recipe and the seed of the checkpoint, which has 2 epochs"):
            train(TINY.with_(**{"epochs": 2} | change), **with_checkpoint)
    with pytest.raises(ValueError, match="expected the recipe and the seed of the checkpoint"):
        train(TINY.with_(epochs=2), seed=1, **with_checkpoint)
    with pytest.raises(ValueError, match="expected at least the checkpoint's 2 epochs, got 1"):
        train(TINY.with_(epochs=1), **with_checkpoint)
    longer, state = train(TINY.with_(epochs=3), **with_checkpoint)  # at a constant rate the first epochs are the same
    assert state.epoch == 3
    assert equal(longer, train(TINY.with_(epochs=3))[0])


def test_any_network_and_images_can_be_trained(no_bands):
    """The class of each image is its brightest channel; the network is not one of ours, nor are the images' size."""
    images = torch.randint(0, 256, (60, 3, 16, 16), dtype=torch.uint8)
    labels = images.float().mean(dim=(2, 3)).argmax(dim=1)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    recipe = Recipe("mine").with_(epochs=3, batch_size=20, eval_images=10)
    before = model[0].weight.detach().clone()
    state = hfclib.fit(model, (images, labels), (images, labels), recipe, seed=0, progress=False)
    assert not torch.equal(model[0].weight, before)
    assert (state.epoch, {row["images"] for row in state.rows}) == (3, {10})


def test_the_mean_colour_is_that_of_the_training_images():
    """Only an HFC with the mean colour added is as bright as that: all images are brighter than those measured."""
    images, labels = torch.rand(60, 1, 16, 16) ** 2, torch.arange(60) % 3
    images[:10] /= 2
    model, means = nn.Sequential(nn.Flatten(), nn.Linear(256, 3)), []
    model.register_forward_pre_hook(
        lambda module, given: None if module.training else means.append(given[0].mean().item())
    )
    for colour in (None, (0.5,)):
        options = {"seed": 0, "colour": colour, "progress": False}
        means.clear()
        hfclib.fit(model, (images, labels), (images, labels), Recipe("mine").with_(epochs=1, eval_images=10), **options)
        added = images.mean().item() if colour is None else 0.5
        assert sum(abs(mean - added) < 1e-5 for mean in means) == 2  # at the two of PAPER_RADII that fit 16 pixels


def test_the_radii_fit_the_size_of_the_images():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))
    recipe, radii = Recipe("mine").with_(epochs=1, batch_size=10, eval_images=10, train_bands=True), {}
    for height, width in ((16, 16), (32, 32), (96, 96), (24, 40)):
        images, labels = torch.rand(10, 3, height, width), torch.arange(10) % 3
        state = hfclib.fit(model, (images, labels), (images, labels), recipe, seed=0, progress=False)
        hfc = pd.DataFrame(state.rows).query("band == 'hfc'")
        parts = "split == 'test' and feed == 'raw'", "feed == 'mean'", "split == 'train'"
        radii[height, width] = [sorted(hfc.query(part)["radius"].unique()) for part in parts]
        highest = radii[height, width][0][-1]
        assert hfclib.split(images, highest)[1].abs().max() > 1e-3  # something is left of an HFC
        assert hfclib.split(images, highest + 1)[1].abs().max() < 1e-3
    assert radii[16, 16] == [list(range(1, 12)), [4, 8], [4, 8]]
    assert radii[32, 32] == [list(range(1, 23)), [4, 8, 12, 16], [4, 8, 12, 16]]
    raw, *others = radii[96, 96]
    assert (raw[0], raw[-1], others) == (4, 67, [[12, 24, 36, 48]] * 2)
    assert {4, 8, 12, 16, 24, 36, 48} < set(raw)
    assert np.diff(raw).max() <= 4
    assert radii[24, 40][1:] == [[3, 6, 9, 12]] * 2


def test_an_odd_number_of_rows_has_no_bin_beyond_the_half_below_it():
    """At 9 x 8 bins reach 4 rows and 4 columns from the centre."""
    assert list(_measured_radii(torch.empty(2, 3, 9, 8), Recipe("odd"))[0]) == [1, 2, 3, 4, 5]


def test_radii_at_the_sizes_of_the_data_sets_are_those_of_the_recipes():
    for data, side in (("cifar10", 32), ("mnist", 28)):
        recipe = Recipe("any").with_(dataset=data)
        assert _measured_radii(torch.empty(2, 1, side, side), recipe) == (recipe.radii, None)
        assert list(recipe.radii) == list(range(1, int(math.hypot(side // 2, side // 2)) + 1))


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_is_left_in_evaluation_mode(no_bands, fails):
    model = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(3 * 64, 3)).train()
    images, labels = torch.rand(10, 3, 8, 8), torch.arange(10) % 3
    recipe = Recipe("mine").with_(epochs=1, batch_size=5, eval_images=10, learning_rate=1e-3)
    if fails:
        model.register_forward_pre_hook(lambda module, _: 1 / 0 if module.training else None)
    with pytest.raises(ZeroDivisionError) if fails else nullcontext():
        hfclib.fit(model, (images, labels), (images, labels), recipe, seed=0, progress=False)
    assert not any(module.training for module in model.modules())


def test_another_default_device_changes_nothing(no_bands, train):
    """The meta device does not mix with the CPU, as a GPU does not, and holds no number that is right by chance."""
    images, labels = torch.rand(6, 3, 32, 32), list(range(6))
    for recipe in (RANDOM, ATTACKED):
        expected, state = train(recipe.with_(epochs=1))
        with torch.device("meta"):
            model, again = train(recipe.with_(epochs=1))
            assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
            assert equal(model, expected)
            assert again.rows == state.rows
            assert accuracy(model, images, labels) == accuracy(expected, images, labels)
    with torch.device("meta"):
        assert hfclib.LowPass((2, 6))(images).device.type == "cpu"


# ---- what is recorded


def test_curves_have_a_row_for_every_measurement_of_every_epoch(train):
    seen, count = [], 58
    _, state = train(TINY, checkpoint=lambda *args: seen.append((args[3].epoch, len(args[3].rows))))
    assert seen == [(1, count), (2, 2 * count)]
    assert all(set(row) == {"epoch", *CURVE_COLUMNS} for row in state.rows)
    assert [row["epoch"] for row in state.rows] == [1] * count + [2] * count
    assert {row["images"] for row in state.rows} == {20}
    assert state.train_seconds > 0
    assert state.eval_seconds > 0


def test_training_images_are_measured_as_they_were_trained_on(no_bands, cifar, train):
    fed = []

    def note(module, given):
        if not module.training and len(given[0]) > 2:  # so many are only a check
            fed.append(given[0])

    def observe(model, *_):
        model.register_forward_pre_hook(note)
        return Progress()

    model, state = train(TINY.with_(rescale="max", epochs=1), restore=observe)
    (train_images, train_labels), (test_images, test_labels) = (
        (to_float(images[:20]), labels[:20]) for images, labels in (cifar["train"], cifar["test"])
    )
    train_images = train_images / train_images.amax(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(fed[0], train_images)
    assert torch.equal(fed[1], test_images)
    assert len(state.rows) == 2
    expected = [
        accuracy(model, images, labels, amp=True)
        for images, labels in ((train_images, train_labels), (test_images, test_labels))
    ]
    assert [row["accuracy"] for row in state.rows] == pytest.approx(expected)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_bands_of_training_images_are_measured_with_the_labels_they_were_trained_on(norm, no_bands, cifar, train):
    model, state = train(TINY.with_(norm=norm, labels="shuffled", train_bands=True))
    images, labels = cifar["train"][0][:20], training_set(TINY.with_(labels="shuffled"))[1][:20]
    rows = [row for row in state.rows if row["epoch"] == 2 and row["split"] == "train" and row["band"] != "x"]
    accuracies = {(row["band"], row["radius"], row["bn_stats"]): row["accuracy"] for row in rows}
    statistics = ("running", "batch") if norm == "batch" else ("running",)
    assert len(accuracies) == len(rows) == 2 * 4 * len(statistics)
    for radius in PAPER_RADII:
        for band, part in zip(("lfc", "hfc"), split(to_float(images), radius), strict=True):
            for bn_stats in statistics:
                expected = accuracy(model, part, labels, bn_stats=bn_stats, amp=True)
                assert accuracies[band, radius, bn_stats] == pytest.approx(expected)
    assert {(row["feed"], row["images"]) for row in rows} == {("raw", 20)}
    assert [row["epoch"] for row in state.rows if row["split"] == "train" and row["band"] == "x"] == [
        epoch for epoch in (1, 2) for _ in statistics
    ]
    whole = next(row for row in state.rows if row["epoch"] == 2 and row["split"] == "train")
    assert whole["accuracy"] == pytest.approx(accuracy(model, to_float(images), labels, amp=True))


# ---- training on a band


@pytest.mark.parametrize(("band", "rescale"), [("lfc", "none"), ("hfc", "range")])
def test_a_band_is_what_split_gives_rescaled(cifar, band, rescale):
    recipe = TINY.with_(train_band=band, train_radius=4, rescale=rescale)
    images = cifar["train"][0][:20]
    for image, result in zip(images, as_trained(images, recipe), strict=True):
        expected = split(to_float(image[None]), 4)[band == "hfc"][0]
        if rescale == "range":
            expected = (expected - expected.min()) / (expected.max() - expected.min())
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)


def test_a_louder_hfc_is_added_to_the_lfc(cifar):
    images = cifar["train"][0][:20]
    low, high = split(to_float(images), 8)
    recipe = TINY.with_(train_band="sum", train_radius=8, train_scale=4.0)
    torch.testing.assert_close(as_trained(images, recipe), low + 4 * high, rtol=0, atol=1e-5)
    alike = as_trained(images, recipe.with_(train_scale=1.0))
    torch.testing.assert_close(alike, to_float(images), rtol=0, atol=1e-5)


def test_a_network_trained_on_a_band_is_fed_the_band(no_bands, cifar, trained_on):
    recipe = TINY.with_(train_band="hfc", train_radius=8, rescale="range", augment=False, epochs=1)
    fed, _ = trained_on(recipe)
    made = _batches(*training_set(recipe), recipe.data, torch.device("cpu")).epoch(torch.Generator())
    images, labels = (torch.cat(tensors) for tensors in zip(*made, strict=True))
    assert torch.equal(torch.cat(fed).sort(dim=0).values, images.sort(dim=0).values)  # in another order
    expected = as_trained(cifar["train"][0][: recipe.data.train_images], recipe)
    nearest = torch.cdist(images.flatten(1), expected.flatten(1)).min(dim=1)
    assert nearest.values.max() < 0.05  # the band is kept in float16
    assert sorted(nearest.indices.tolist()) == list(range(recipe.data.train_images))
    assert torch.equal(labels, cifar["train"][1][nearest.indices])


def test_a_network_trained_on_a_band_is_measured_on_it_too(cifar, train):
    recipe = TINY.with_(train_band="lfc", train_radius=4, rescale="range", epochs=1)
    model, state = train(recipe)
    rows = {(row["split"], row["band"], row["radius"], row["feed"]): row for row in state.rows}
    for name in ("train", "test"):
        images, labels = (tensor[:20] for tensor in cifar[name])
        measured = accuracy(model, as_trained(images, recipe), labels, amp=True)
        assert rows[name, "lfc", 4, "range"]["accuracy"] == pytest.approx(measured)
    images, labels = (tensor[:20] for tensor in cifar["test"])
    assert rows["test", "x", -1, "raw"]["accuracy"] == pytest.approx(
        accuracy(model, to_float(images), labels, amp=True)
    )
    assert ("train", "x", -1, "raw") not in rows


def test_sgd_has_momentum_and_weight_decay():
    recipe = TINY.with_(algorithm="sgd", learning_rate=0.1, weight_decay=0.01)
    model = nn.Linear(3, 2, bias=False)
    start = model.weight.detach().clone()
    optimizer, _ = make_optimizer(model, recipe, 10)
    model.weight.grad = torch.ones(2, 3)
    optimizer.step()
    gradient = 1 + 0.01 * start
    torch.testing.assert_close(model.weight.detach(), start - 0.1 * (gradient + 0.9 * gradient))


def test_adamw_shrinks_weights_apart_from_the_gradient():
    recipe = Recipe("a").with_(algorithm="adamw", learning_rate=0.01, weight_decay=0.5)
    model = nn.Linear(3, 2, bias=False)
    start, gradient = model.weight.detach().clone(), torch.tensor([[1.0, -2.0, 0.5], [-1.0, 3.0, 1.5]])
    optimizer, _ = make_optimizer(model, recipe, 10)
    model.weight.grad = gradient.clone()
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), start * (1 - 0.01 * 0.5) - 0.01 * gradient.sign())


def test_a_step_of_each_other_optimizer_by_hand():
    first = {
        "sgd_plain": lambda gradient: gradient,
        "adagrad": lambda gradient: gradient.sign(),
        "adadelta": lambda gradient: gradient * (1e-6 / (0.1 * gradient**2 + 1e-6)) ** 0.5,
        "rmsprop": lambda gradient: gradient / (0.1 * gradient.abs()),
    }
    for name, step in first.items():
        model = nn.Linear(3, 2, bias=False)
        start, gradient = model.weight.detach().clone(), torch.tensor([[1.0, -2.0, 0.5], [-1.0, 3.0, 1.5]])
        optimizer, _ = make_optimizer(model, TINY.with_(algorithm=name, learning_rate=0.01), 10)
        model.weight.grad = gradient.clone()
        optimizer.step()
        torch.testing.assert_close(model.weight.detach(), start - 0.01 * step(gradient), rtol=1e-4, atol=1e-6)


# ---- a loss that is no number


def test_a_loss_that_is_no_number_stops_the_training(no_bands, train):
    with pytest.raises(TrainingError, match=r"loss of tiny, seed 5, is (nan|inf) in epoch 1.*smaller learning_rate"):
        train(TINY.with_(learning_rate=1e20), seed=5)


def test_progress_bar_names_loss_and_accuracy(no_bands, capsys, train):
    train(TINY, seed=3, progress=True)
    said = capsys.readouterr().err
    assert "tiny, seed 3" in said
    assert "acc=" in said
    assert "loss=" in said
    train(TINY)
    assert capsys.readouterr().err == ""


def untrained(model):
    """The model, which fails the test when it is trained."""
    model.register_forward_pre_hook(lambda module, _: pytest.fail("it was trained") if module.training else None)
    return model


def test_bad_images_and_labels_are_refused_before_the_work():
    images, labels = torch.rand(101, 3, 8, 8), torch.zeros(101, dtype=torch.int64)
    plain, normed = untrained(hfclib.resnet18(2).eval()), untrained(hfclib.resnet18(2, "batch").eval())
    recipe = Recipe("mine").with_(epochs=1, batch_size=8, eval_images=200)
    attacked = recipe.with_(attack=AttackConfig("pgd", eps=0.05, alpha=0.05, steps=1))
    test = (images[:20], labels[:20])
    with pytest.raises(ValueError, match=r"images in \[0, 1\]"):  # as half types round them; attacks would refuse them
        fit(plain, (images * 1.0005 / images.max(), labels), test, attacked, seed=0, progress=False)
    for model, train, message in (
        (plain, (images, labels[:50]), "one label per image"),
        (plain, (images * 4 - 2, labels), r"images in \[0, 1\]"),
        (plain, (images, labels + 10), "labels below 10"),
        (plain, (images, labels.float()), "whole numbers"),
        (plain, (images[:, :, 0], labels), "shape"),
        (plain, (images.movedim(1, -1), labels), r"which seem to be \(N, H, W, C\)"),
        (normed, (images[:1], labels[:1]), "at least 2 images"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            fit(model, train, test, recipe, seed=0, progress=False)
    beyond = recipe.with_(train_band="hfc", train_radius=6)
    with pytest.raises(ValueError, match=r"train_radius of at most 5\.7, where the spectrum of 8 x 8 .*, got 6"):
        fit(plain, (images, labels), test, beyond, seed=0, progress=False)
    with pytest.raises(ValueError, match=r"colour, numbers in \[0, 1\]"):
        fit(plain, (images, labels), test, recipe, seed=0, progress=False, colour=[120] * 3)


def test_a_network_with_batch_norm_that_is_split_over_gpus_is_refused_before_the_work(monkeypatch):
    monkeypatch.setattr(nn.DataParallel, "forward", lambda self, images: self.module(images))  # as on two GPUs
    model = nn.DataParallel(untrained(hfclib.resnet18(2, "batch").eval()))
    model.device_ids = [0, 1]
    data = torch.rand(20, 3, 8, 8), torch.zeros(20, dtype=torch.int64)
    with pytest.raises(ValueError, match="DataParallel, which cuts batches up: give its module"):
        fit(model, data, data, Recipe("mine").with_(epochs=1, batch_size=8), seed=0, progress=False)


def test_a_network_whose_batch_norm_has_no_statistics_to_choose_is_refused_before_the_work():
    class Direct(nn.BatchNorm2d):
        def forward(self, maps):
            arguments = self.weight, self.bias, self.running_mean, self.running_var, self.training, 0.1, self.eps, False
            return torch.batch_norm(maps, *arguments)

    model = untrained(nn.Sequential(Direct(3), nn.Flatten(), nn.Linear(192, 10)).eval())
    data = torch.rand(20, 3, 8, 8), torch.zeros(20, dtype=torch.int64)
    with pytest.raises(ValueError, match="a model whose BatchNorm layers are not called, or"):
        fit(model, data, data, Recipe("mine").with_(epochs=1, batch_size=8), seed=0, progress=False)


# ---- a DataLoader in place of the data


LOADED = Recipe("loaded", epochs=2, eval_images=10).with_(learning_rate=0.01)


class Pictures(Dataset):
    """Twelve images with the number of the class in their brightest channel."""

    def __init__(self, kind=torch.float32):
        self.labels = torch.arange(12) % 3
        images = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(1)) / 2
        images[torch.arange(12), self.labels] += 0.5
        self.images = (images * 255).to(torch.uint8) if kind == torch.uint8 else images.to(kind)

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return self.images[index], int(self.labels[index])


def linear():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 3))


def loaded(loader, test=None, recipe=LOADED, **options):
    model = linear()
    if loader.batch_size:
        recipe = recipe.with_(batch_size=loader.batch_size)
    return model, fit(model, loader, test or loader, recipe, seed=3, progress=False, **options)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.uint8])
def test_a_loader_trains_as_its_tensors_do(kind, in_float32):
    pictures = Pictures(kind)
    model, state = loaded(DataLoader(pictures, 12))
    expected = linear()
    pair = pictures.images, pictures.labels  # one batch of all, in whatever order
    fit(expected, pair, pair, LOADED, seed=3, progress=False)
    torch.testing.assert_close(model[1].weight, expected[1].weight, rtol=1e-4, atol=1e-6)
    assert not torch.equal(model[1].weight, linear()[1].weight)
    assert {row["images"] for row in state.rows} == {10}
    assert state.epoch == 2


def test_every_batch_of_a_loader_is_a_step_and_the_seed_decides_its_order():
    seen, known = [], Pictures().images.flatten(1)

    def observe(model, *_):
        def note(module, given):
            if module.training:
                seen.append(torch.cdist(given[0].flatten(1), known).argmin(dim=1).tolist())

        model.register_forward_pre_hook(note)
        return Progress()

    state = torch.get_rng_state()
    models = [loaded(DataLoader(Pictures(), 5, shuffle=True), restore=observe)[0] for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), state)
    assert equal(*models)
    assert [len(indices) for indices in seen[:6]] == [5, 5, 2] * 2
    assert sorted(chain(*seen[:3])) == list(range(12))
    assert seen[:3] != seen[3:6]
    assert seen[:6] == seen[6:]


def test_batches_may_be_mappings_and_the_test_images_a_loader_alone():
    pictures = Pictures()
    batches = [{"image": pictures.images[part], "label": pictures.labels[part]} for part in (slice(6), slice(6, 12))]
    expected, rows = loaded(DataLoader(pictures, 6))
    pair = pictures.images, pictures.labels
    loaders = DataLoader(batches, batch_size=None), DataLoader(pictures, 6), DataLoader(batches, batch_size=None)
    for train, test in ((loaders[0], pair), loaders[1:]):
        model, state = loaded(train, test)
        assert equal(model, expected)
        assert state.rows == rows.rows


def test_the_measured_images_of_a_loader_are_its_first_ones():
    pictures = Pictures()
    _, state = loaded(DataLoader(pictures, 5))
    first = pictures.images[:10], pictures.labels[:10]
    model, other = loaded(DataLoader(pictures, 5), first)
    assert state.rows == other.rows
    last = [row["accuracy"] for row in state.rows if (row["split"], row["band"], row["epoch"]) == ("train", "x", 2)]
    assert last == [accuracy(model, *first)]


def test_fields_that_fit_can_not_honour_are_refused_by_name():
    pair, loader = (torch.rand(12, 3, 8, 8), torch.arange(12) % 3), DataLoader(Pictures(), 5)
    given = {"network": "lenet", "width": 16, "norm": "batch", "dropout": 0.5, "stem_kernel": 5, "final_images": 50}
    given |= {"dataset": "mnist", "train_images": 60, "labels": "shuffled", "planted": 0.1}
    made = {"augment": True, "rescale": "max", "early_sizes": (8,)}
    for train, changes, reason in (
        *[
            (data, {field: value}, "the network and the images")
            for data in (pair, loader)
            for field, value in given.items()
        ],
        *[(loader, {field: value}, "the DataLoader makes the batches") for field, value in made.items()],
        (loader, {"train_band": "lfc", "train_radius": 4}, "the DataLoader"),
    ):
        with pytest.raises(ValueError, match=f"^refused recipe: .*{reason}.*: it can't honour {', '.join(changes)}$"):
            fit(untrained(linear().eval()), train, pair, Recipe("a").with_(**changes), seed=0)
    with pytest.raises(ValueError, match="can't honour width, augment, final_images"):
        fit(linear(), loader, pair, Recipe("a", final_images=9).with_(width=1, batch_size=5, augment=True), seed=0)


def test_a_recipe_with_another_size_of_batches_than_the_loader_is_refused():
    pictures, options = Pictures(), {"seed": 0, "progress": False}
    pair, sampler = (pictures.images, pictures.labels), BatchSampler(SequentialSampler(pictures), 5, drop_last=False)
    usual = Recipe("a", eval_images=10).with_(epochs=1)
    for recipe in usual, usual.with_(batch_size=6):
        size = recipe.data.batch_size
        with pytest.raises(ValueError, match=rf"of the DataLoader, 5, got {size}: recipe.with_\(batch_size=5\)$"):
            fit(untrained(linear().eval()), DataLoader(pictures, 5), pair, recipe, **options)
        assert fit(linear(), DataLoader(pictures, size), DataLoader(pictures, 5), recipe, **options).epoch == 1
        assert fit(linear(), pair, DataLoader(pictures, 5), recipe, **options).epoch == 1
    unknown = DataLoader(pictures, batch_sampler=sampler)
    assert fit(linear(), unknown, pair, usual, **options).epoch == 1
    with pytest.raises(ValueError, match="the DataLoader makes the batches: it can't honour batch_size"):
        fit(untrained(linear().eval()), unknown, pair, usual.with_(batch_size=5), **options)


def test_a_later_label_below_zero_is_refused_when_it_comes():
    images, labels = Pictures().images, Pictures().labels.clone()
    labels[-1] = -100
    with pytest.raises(ValueError, match="labels of at least 0, got -100"):
        loaded(DataLoader(list(zip(images, labels, strict=True)), 4), (images, Pictures().labels))


def test_later_batches_that_are_no_images_or_too_many_are_refused_when_they_come(monkeypatch):
    images, labels = Pictures().images.clone(), Pictures().labels
    images[-1] *= 200

    class Longer(IterableDataset):
        def __iter__(self):
            return iter(zip(Pictures().images, labels.tolist(), strict=True))

        def __len__(self):
            return 8

    with pytest.raises(ValueError, match=r"images in \[0, 1\]"):
        loaded(DataLoader(list(zip(images, labels, strict=True)), 4), (Pictures().images, labels))
    monkeypatch.setattr("warnings.warn", lambda *_, **__: None)  # PyTorch warns of the length, too
    with pytest.raises(ValueError, match="expected 2 batches, the length of the DataLoader"):
        loaded(DataLoader(Longer(), 4), (Pictures().images, labels))


def test_bad_loaders_are_refused_before_the_work():
    images, labels = Pictures().images, Pictures().labels

    class Stream(IterableDataset):
        def __iter__(self):
            return iter(zip(images, labels, strict=True))

    def batches(*pairs):
        return DataLoader(list(pairs), batch_size=None)

    for loader, message in (
        (DataLoader(images, 4), "images and labels, got batches of Tensor"),
        (batches([images]), "images and labels, got batches of list"),
        (batches((images, "cat")), "two tensors, got Tensor and str"),
        (batches({"x": images, "y": labels}), "expected batches with the keys"),
        (batches((images * 2, labels)), r"images in \[0, 1\], got values"),
        (batches((images, labels + 1)), "labels below 3"),
        (batches((images, labels.float())), "whole numbers"),
        (batches((images[:, :, 0], labels)), "expected images"),
        (batches((images[:, :1], labels)), r"the model fails on images \(2, 1, 8, 8\)"),
        (batches((images[:3], labels[:3]), (images[3:, :, :4], labels[3:])), "images of one size"),
        (batches(), "expected at least one image"),
        (DataLoader(Stream(), 4), "expected a DataLoader with a length"),
    ):
        for train, test in ((loader, (images, labels)), ((images, labels), loader)):
            if isinstance(test, DataLoader) and "length" in message:
                continue
            recipe = LOADED.with_(batch_size=getattr(train, "batch_size", None) or 100)
            with pytest.raises((TypeError, ValueError), match=message):
                fit(untrained(linear().eval()), train, test, recipe, seed=0, progress=False)
