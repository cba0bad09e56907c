"""The training loop: plain, with dropout, mix-up or BatchNorm, adversarial or penalised, on whole images or a band."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from hfclib.data.cifar import cifar10, embedded, to_float
from hfclib.devices import autocast
from hfclib.evaluation import Part, curve_rows, training_band_rows
from hfclib.frequency import split
from hfclib.kernels import convolutions, smoothness_penalty
from hfclib.training.adversarial import adversarial_images, collapsed, epoch_rows
from hfclib.training.batches import Batches
from hfclib.training.recipe import RADII, Recipe
from hfclib.transforms import rescaled

SHUFFLE_SEED = 0  # of the permutation of the labels, one for all seeds of a training
# The class of each of `OPTIMIZERS` and its settings; fused where PyTorch has that on CPUs and GPUs alike.
_OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict]] = {
    "adam": (torch.optim.Adam, {"fused": True}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "fused": True}),
    "sgd_plain": (torch.optim.SGD, {"fused": True}),
    "adagrad": (torch.optim.Adagrad, {}),
    "adadelta": (torch.optim.Adadelta, {}),
    "rmsprop": (torch.optim.RMSprop, {}),
}


class TrainingError(RuntimeError):
    """A training that cannot go on: a loss that is no longer a number, or robustness that has collapsed."""


@dataclass
class Progress:
    """All that a training needs to go on after an epoch, beside the weights: what a checkpoint holds.

    Attributes:
        epoch: epochs done.
        rows: the curves so far: "epoch" and `CURVE_COLUMNS`.
        train_seconds, eval_seconds: time spent so far on the epochs, and on the measurements after each.
        commits: the code that each sitting ran.
    """

    epoch: int = 0
    rows: list[dict] = field(default_factory=list)
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    commits: list[str] = field(default_factory=list)


def training_set(recipe: Recipe, *, progress: bool = True) -> tuple[Tensor, Tensor]:
    """The recipe's training images and labels, uint8 and int64: embedded ones where they are enough.

    Shuffled labels are the natural ones of these images in the order of a NumPy generator's permutation, seeded with
    SHUFFLE_SEED: every class keeps its number of images, and about a tenth of the images keep their label.
    """
    images, labels = embedded("train")
    if recipe.train_images > len(labels):
        images, labels = cifar10("train", progress=progress)
    images, labels = images[: recipe.train_images], labels[: recipe.train_images]
    if recipe.labels == "shuffled":
        labels = labels[torch.from_numpy(np.random.default_rng(SHUFFLE_SEED).permutation(len(labels)))]
    return images, labels


def make_optimizer(
    model: nn.Module, recipe: Recipe, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """The optimizer and its schedule over `steps` steps.

    Source: Adam from the paper, section 4.2; SGD, AdaGrad, AdaDelta and RMSprop from its section 5.1, whose settings
    are not published; the rest is ours.
    """
    make, settings = _OPTIMIZERS[recipe.optimizer]
    settings = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay, **settings}
    optimizer = make(model.parameters(), **settings)
    if recipe.schedule == "one_cycle":
        # PyTorch divides by zero where a fifth of the steps is a single one; so short a training ends before the cycle.
        total = max(steps, 10)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, recipe.learning_rate, total_steps=total, pct_start=0.2, cycle_momentum=False
        )
    else:
        scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    return optimizer, scheduler


def loss_on(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of a batch, attacked or mixed up as the recipe says, and its logits.

    Labels are smoothed as the recipe says; an attack in training goes by the label itself.
    """
    cross_entropy = partial(F.cross_entropy, label_smoothing=recipe.label_smoothing)
    if not recipe.mixup_alpha:
        logits = model(adversarial_images(model, images, labels, recipe, generator))
        return cross_entropy(logits, labels), logits
    share = rng.beta(recipe.mixup_alpha, recipe.mixup_alpha)
    partner = torch.randperm(len(labels), generator=generator).to(labels.device)
    logits = model(share * images + (1 - share) * images[partner])
    loss = share * cross_entropy(logits, labels) + (1 - share) * cross_entropy(logits, labels[partner])
    return loss, logits


def training_step(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    *,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """One step of the optimizer on a batch; returns its loss and logits, detached.

    In adversarial training both are those of the attacked images. The loss includes the smoothness penalty, if any.
    """
    with autocast(images.device):
        loss, logits = loss_on(model, images, labels, recipe, rng, generator)
    if recipe.smoothness_penalty:
        loss = loss + recipe.smoothness_penalty * smoothness_penalty(convolutions(model)[0].weight)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach(), logits.detach()


def _train_epoch(model, batches, optimizer, scheduler, recipe, *, seed, epoch, bar) -> float:
    """Train for an epoch and return the accuracy on its batches, as they were fed."""
    # Everything random in an epoch hangs on (seed, epoch) alone, so that a resumed training needs no stored state.
    entropy = int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint32)[0])
    rng, generator = np.random.default_rng(entropy), torch.Generator().manual_seed(entropy)
    device = batches.images.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(entropy)
        model.train()
        right = seen = 0
        size = recipe.early_sizes[epoch] if epoch < len(recipe.early_sizes) else None
        for step, (images, labels) in enumerate(batches.epoch(generator, size)):
            loss, logits = training_step(model, images, labels, recipe, optimizer, rng=rng, generator=generator)
            scheduler.step()
            seen += len(logits)
            right += (logits.argmax(dim=1) == labels).sum()
            bar.update(len(labels))
            if step % 20 == 0 or step == len(batches) - 1:
                if not torch.isfinite(loss):
                    raise TrainingError(
                        f"the loss of {recipe.name}, seed {seed}, is {loss.item()} in epoch {epoch + 1}: "
                        "try a smaller learning_rate"
                    )
                bar.set_postfix(
                    epoch=f"{epoch + 1}/{recipe.epochs}",
                    loss=f"{loss.item():.3f}",
                    acc=f"{right.item() / seen:.3f}",
                    refresh=False,
                )
    return (right / seen).item()


def initial_model(recipe: Recipe, seed: int) -> nn.Module:
    """The network that a training of `recipe` with `seed` starts from, on the CPU."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return recipe.build()


def fit(
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    restore: Callable[[nn.Module, torch.optim.Optimizer, object], Progress] | None = None,
    checkpoint: Callable[[nn.Module, torch.optim.Optimizer, object, Progress], None] | None = None,
    progress: bool = True,
) -> tuple[nn.Module, Progress]:
    """Train a recipe from where `restore` left off, calling `checkpoint` after every epoch.

    Args:
        recipe: what to train.
        seed: of the weights, the order, crops, flips, dropout and mix-up; 0 or more.
        device: where to train.
        restore: fills model, optimizer and scheduler and returns the Progress; None starts afresh.
        checkpoint: stores them.
        progress: show a bar with loss, accuracy and time left.
    Returns:
        (the trained model on `device`, its Progress with a row of curves for every measurement).
    Raises:
        TrainingError: the loss is no longer finite, or adversarial training overfits to its own attack (`collapsed`
            in `adversarial`).
        DataError: no source has the training images.
    """
    images, labels = training_set(recipe, progress=progress)
    test_images, test_labels = embedded("test")
    model = initial_model(recipe, seed).to(device, memory_format=torch.channels_last)
    source = images if recipe.train_band == "x" else _band_of(images, recipe).half()
    batches = Batches(
        source, labels, batch_size=recipe.batch_size, augment=recipe.augment, rescale=recipe.rescale, device=device
    )
    optimizer, scheduler = make_optimizer(model, recipe, recipe.epochs * len(batches))
    state = restore(model, optimizer, scheduler) if restore else Progress()
    part = slice(recipe.eval_images)
    parts = measured_parts(recipe, (images[part], labels[part]), (test_images[part], test_labels[part]))
    test = (to_float(test_images[part]), test_labels[part])
    bar = tqdm(
        total=recipe.epochs * len(labels),
        initial=state.epoch * len(labels),
        unit=" images",
        desc=f"{recipe.name}, seed {seed}",
        disable=not progress,
    )
    with bar:
        for epoch in range(state.epoch, recipe.epochs):
            start = time.perf_counter()
            own = _train_epoch(model, batches, optimizer, scheduler, recipe, seed=seed, epoch=epoch, bar=bar)
            between = time.perf_counter()
            rows = curve_rows(model, parts, test, RADII)
            if recipe.train_bands:
                rows += training_band_rows(model, to_float(images[part]), labels[part])
            rows += epoch_rows(model, *test, recipe)
            state.rows += [{"epoch": epoch + 1, **row} for row in rows]
            if collapsed(state.rows, own):
                raise TrainingError(
                    f"{recipe.name}, seed {seed}, withstands only its own attack from epoch {epoch + 1} on: accuracy "
                    f"{own:.3f} under it, {rows[-1]['accuracy']:.3f} under PGD; try a smaller adv_alpha, or pgd"
                )
            state.epoch = epoch + 1
            state.train_seconds += between - start
            state.eval_seconds += time.perf_counter() - between
            if checkpoint:
                checkpoint(model, optimizer, scheduler, state)
    return model, state


def _band_of(images: Tensor, recipe: Recipe) -> Tensor:
    if recipe.train_band == "x":
        return to_float(images)
    parts = [split(to_float(block), recipe.train_radius) for block in images.split(1000)]
    return torch.cat([part[recipe.train_band == "hfc"] for part in parts])


def as_trained(images: Tensor, recipe: Recipe) -> Tensor:
    """Images as the recipe feeds them to the network in training, without augmentation.

    Args:
        images: (N, 3, H, W) uint8.
        recipe: says which band, and how it is rescaled.
    Returns:
        (N, 3, H, W) float32.
    """
    return rescaled(_band_of(images, recipe), recipe.rescale)


def measured_parts(recipe: Recipe, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> list[Part]:
    """What a run's accuracy is measured on, beside the bands of the test images.

    Args:
        recipe: how the network is trained.
        train, test: (images uint8, labels).
    Returns:
        Training images as the network is trained on them; whole test images; and, of a network that is trained on a
        band, the same band of the test images.
    """
    test_part = Part("test", to_float(test[0]), test[1])
    if recipe.train_band == "x":
        return [Part("train", as_trained(train[0], recipe), train[1]), test_part]
    feed = "raw" if recipe.rescale == "none" else recipe.rescale
    of_band = {"band": recipe.train_band, "radius": recipe.train_radius, "feed": feed}
    return [
        Part("train", as_trained(train[0], recipe), train[1], **of_band),
        test_part,
        Part("test", as_trained(test[0], recipe), test[1], **of_band),
    ]
