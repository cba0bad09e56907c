"""The training loop: plain, with dropout, mix-up or BatchNorm, adversarial or penalised, on whole images or a band."""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial, reduce

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adadelta, Adagrad, Adam, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR
from torch.utils.data import DataLoader
from tqdm import tqdm

from hfclib.batching import check_channels_first, check_labels, check_pixels, first_logits
from hfclib.conditions import PAPER_RADII, Condition, uses_batch_statistics
from hfclib.data import DATA_SETS
from hfclib.devices import arithmetic, device_of
from hfclib.frequency import check_images, nyquist, split
from hfclib.kernels import convolutions, smoothness_penalty
from hfclib.metrics import Parts, curve_rows, training_band_rows
from hfclib.training.adversarial import adversarial_images, collapsed, robust_rows
from hfclib.training.batches import Batches, LoaderBatches, first_images, pixels
from hfclib.training.recipe import DataConfig, Recipe
from hfclib.transforms import feed_images, rescaled

# The class of each `OptimizerConfig.algorithm` and its settings; those that PyTorch has as one fused step on CPUs and
# GPUs alike use it there. Other devices, such as XLA's, refuse it.
_FUSED_ON = ("cpu", "cuda", "mps")
_OPTIMIZERS: dict[str, tuple[Callable[..., Optimizer], dict]] = {
    "adam": (Adam, {"fused": True}),
    "adamw": (AdamW, {"fused": True}),
    "sgd": (SGD, {"momentum": 0.9, "nesterov": True, "fused": True}),
    "sgd_plain": (SGD, {"fused": True}),
    "adagrad": (Adagrad, {}),
    "adadelta": (Adadelta, {}),
    "rmsprop": (RMSprop, {}),
}

Data = tuple[Tensor, Tensor] | DataLoader  # images and labels, as in `fit`


class TrainingError(RuntimeError):
    """A training that can't go on: a loss that is not finite, or robustness that has collapsed."""


@dataclass
class Progress:
    """What a checkpoint holds beside the weights and the optimizer: all that a training needs to go on."""

    epoch: int = 0  # epochs done
    rows: list[dict] = field(default_factory=list)  # the curves so far: "epoch" and `CURVE_COLUMNS`
    train_seconds: float = 0.0
    eval_seconds: float = 0.0  # of the measurements after each epoch
    commits: list[str] = field(default_factory=list)  # of the code that trained
    answers: list[float] = field(default_factory=list)  # of a network of the user's, see `store.answers`
    training: str = ""  # which training it is, see `_training`


def make_optimizer(model: nn.Module, recipe: Recipe, steps: int) -> tuple[Optimizer, LRScheduler]:
    """The optimizer and its schedule over `steps` steps.

    Source: Adam from the paper, section 4.2; SGD, AdaGrad, AdaDelta and RMSprop from its section 5.1, whose settings
    are not published; the rest is ours.
    """
    config = recipe.optimizer
    make, settings = _OPTIMIZERS[config.algorithm]
    if device_of(model).type not in _FUSED_ON:
        settings = {name: value for name, value in settings.items() if name != "fused"}
    optimizer = make(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, **settings)
    if config.schedule == "constant":
        return optimizer, ConstantLR(optimizer, factor=1.0)
    # PyTorch divides by zero where a fifth of the steps is a single one; so short a training ends before the cycle.
    cycle: dict = {"total_steps": max(steps, 10), "pct_start": 0.2, "cycle_momentum": False}
    return optimizer, OneCycleLR(optimizer, config.learning_rate, **cycle)


def training_step(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    optimizer: Optimizer,
    *,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """One step of the optimizer on a batch; returns its loss and logits, detached.

    In adversarial training both are those of the attacked images, and the attack uses the labels as they are, not
    smoothed. The loss includes the smoothness penalty, if any.
    """
    cross_entropy = partial(F.cross_entropy, label_smoothing=recipe.label_smoothing)
    with arithmetic(images.device, amp=True):
        if recipe.mixup_alpha:
            share = rng.beta(recipe.mixup_alpha, recipe.mixup_alpha)
            partner = torch.randperm(len(labels), generator=generator, device=generator.device).to(labels.device)
            logits = model(share * images + (1 - share) * images[partner])
            loss = share * cross_entropy(logits, labels) + (1 - share) * cross_entropy(logits, labels[partner])
        else:
            logits = model(adversarial_images(model, images, labels, recipe, generator))
            loss = cross_entropy(logits, labels)
    if recipe.smoothness_penalty:
        loss = loss + recipe.smoothness_penalty * smoothness_penalty(convolutions(model)[0].weight)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach(), logits.detach()


def _train_epoch(model, batches, optimizer, scheduler, recipe, *, seed, epoch, bar) -> float:
    """Train for an epoch and return the accuracy on its batches, as they were fed."""
    # The RNG is seeded from (seed, epoch), so resuming needs no stored state.
    entropy = int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint32)[0])
    rng, generator = np.random.default_rng(entropy), torch.Generator("cpu").manual_seed(entropy)
    with seeded(entropy):
        model.train()
        correct, seen = 0, 0
        sizes = recipe.data.early_sizes
        size = sizes[epoch] if epoch < len(sizes) else None
        for step, (images, labels) in enumerate(batches.epoch(generator, size)):
            images = images.contiguous()  # a network may flatten its maps by view
            loss, logits = training_step(model, images, labels, recipe, optimizer, rng=rng, generator=generator)
            scheduler.step()
            seen += len(logits)
            correct += (logits.argmax(dim=1) == labels).sum()
            bar.update(len(labels))
            if step % 20 == 0 or step == len(batches) - 1:  # reading the loss makes the CPU wait for a GPU
                if not torch.isfinite(loss):
                    raise TrainingError(
                        f"the loss of {recipe.name}, seed {seed}, is {loss.item()} in epoch {epoch + 1}: "
                        "try a smaller learning_rate"
                    )
                shown = {"loss": f"{loss.item():.3f}", "acc": f"{correct.item() / seen:.3f}"}
                bar.set_postfix(epoch=f"{epoch + 1}/{recipe.epochs}", **shown, refresh=False)
    return float(correct / seen)


def initial_model(recipe: Recipe, seed: int) -> nn.Module:
    """The network that a run of `recipe` with `seed` starts from, on the CPU."""
    with seeded(seed):
        return recipe.build()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A context with PyTorch's own generators seeded, on the CPU and all GPUs; their states are restored."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def fit(
    model: nn.Module,
    train: Data,
    test: Data,
    recipe: Recipe,
    *,
    seed: int,
    colour: Sequence[float] | None = None,
    restore: Callable[[nn.Module, Optimizer, object], Progress] | None = None,
    checkpoint: Callable[[nn.Module, Optimizer, object, Progress], None] | None = None,
    progress: bool = True,
) -> Progress:
    """Train a model by a recipe, in place, and measure its accuracy on bands of the test images after every epoch.

    Any model and images will do. They are taken as they are, so that a recipe is refused that sets fields of a network
    or data set of its own, or, with a DataLoader for `train`, any field of `DataConfig` but the loader's own size of
    batches, which the recipe has to have: the loader makes the batches::

        model = MyNet().to("cuda")
        recipe = hfclib.Recipe("mine").with_(epochs=10, batch_size=128, learning_rate=1e-3, augment=True)
        progress = hfclib.fit(model, (images, labels), (test_images, test_labels), recipe, seed=0)
        hfc = pandas.DataFrame(progress.rows).query("band == 'hfc' and radius == 8")

    Bands are measured at every whole radius at which the test images have two parts: 1 to 22 at 32 x 32 pixels, 1 to 11
    at 16 x 16. Where there are more than 22, raw bands are measured at 22 that are spread over them, at PAPER_RADII and
    at a quarter, half, three quarters and all of Nyquist; other feeds, and test-batch statistics, at these four,
    which are PAPER_RADII at 32 x 32. Smaller images have those of PAPER_RADII at which they have two parts.

    Args:
        model: from (N, C, H, W) float32 to (N, classes), on the device where it is to be trained. It is left in
            evaluation mode.
        train, test: (images (N, C, H, W), uint8 or float in [0, 1]; labels (N,) int64), or a DataLoader whose batches
            are such pairs, or mappings with the keys "image" and "label". The first `recipe.eval_images` of each are
            measured after every epoch, in bfloat16 where the device has it: of a loader, those that it yields first, as
            it yields them.
        seed: of the order, crops, flips, dropout, mix-up and attacks; 0 or more. Also of PyTorch's random numbers in a
            loader and its workers, unless it has a generator of its own.
        colour: what the feed "mean" adds to an HFC, a number per channel; None takes the mean of the training images,
            of a loader that of those which are measured.
        restore: fills model, optimizer and scheduler from a checkpoint and returns its Progress; None starts afresh.
        checkpoint: stores them; called after every epoch.
        progress: show a bar with loss, accuracy and time left.
    Returns:
        The Progress at the end, with one row of curves per measurement.
    Raises:
        TypeError, ValueError: images or labels of another type, shape or range, fields of the recipe that can't be
            honoured, a BatchNorm network whose measured images leave a batch of one, or a checkpoint of another recipe
            or seed; where the learning rate is constant, it may have had fewer epochs.
        TrainingError: the loss is no longer finite, or adversarial training overfits to its own attack.

    Convolutions are faster on CPUs after `model.to(memory_format=torch.channels_last)`.
    """
    _refuse_ignored(recipe, train if isinstance(train, DataLoader) else None)
    options: dict = {"colour": colour, "restore": restore, "checkpoint": checkpoint, "progress": progress}
    return fit_own(model, train, test, recipe, seed=seed, **options)


def fit_own(
    model: nn.Module,
    train: Data,
    test: Data,
    recipe: Recipe,
    *,
    seed: int,
    colour: Sequence[float] | None = None,
    restore: Callable[[nn.Module, Optimizer, object], Progress] | None = None,
    checkpoint: Callable[[nn.Module, Optimizer, object, Progress], None] | None = None,
    progress: bool = True,
) -> Progress:
    """`fit` for the recipe's own network and images, which honour the fields that `fit` has to refuse."""
    device = device_of(model)
    loader = LoaderBatches(train, device) if isinstance(train, DataLoader) else None
    with seeded(seed):
        if isinstance(train, DataLoader):
            train = first_images(model, train, recipe.eval_images)
        if isinstance(test, DataLoader):
            test = first_images(model, test, recipe.eval_images)
    images, labels = _checked(model, train[0], train[1], recipe)
    test = _checked(model, test[0], test[1], recipe)
    batches = _batches(images, labels, recipe.data, device) if loader is None else loader
    optimizer, scheduler = make_optimizer(model, recipe, recipe.epochs * len(batches))
    state = _of_training(restore(model, optimizer, scheduler) if restore else Progress(), recipe, seed)
    if colour is None:
        blocks = images.split(1000)  # all at once would take gigabytes
        sums = (pixels(block).mean(dim=(2, 3)).sum(dim=0) for block in blocks)
        colour = (reduce(torch.add, sums) / len(images)).tolist()
    feed_images(pixels(test[0][:1]), "mean", add_mean=True, colour=colour)  # refuses a bad colour before the work
    part = slice(recipe.eval_images)
    seen, held_out = (images[part], labels[part]), (test[0][part], test[1][part])
    parts, measured = measured_parts(recipe, seen, held_out), (pixels(held_out[0]), held_out[1])
    count = batches.images_per_epoch
    done = {"total": count and recipe.epochs * count, "initial": state.epoch * (count or 0), "unit": " images"}
    radii, other_radii = _measured_radii(test[0], recipe)
    with (
        _evaluated_afterwards(model),
        tqdm(desc=f"{recipe.name}, seed {seed}", disable=not progress, **done) as bar,
    ):
        for epoch in range(state.epoch, recipe.epochs):
            start = time.perf_counter()
            own = _train_epoch(model, batches, optimizer, scheduler, recipe, seed=seed, epoch=epoch, bar=bar)
            between = time.perf_counter()
            try:
                rows = curve_rows(model, parts, measured, radii, other_radii=other_radii, colour=colour)
            except ValueError as error:
                told = f"{recipe.name}, seed {seed}, can't be measured after epoch {epoch + 1} ({error})"
                raise TrainingError(f"{told}: try a smaller learning_rate") from error
            if recipe.train_bands:
                bands = PAPER_RADII if other_radii is None else other_radii
                rows += training_band_rows(model, pixels(seen[0]), seen[1], bands)
            rows += robust_rows(model, *measured, recipe)
            state.rows += [{"epoch": epoch + 1, **row} for row in rows]
            if collapsed(state.rows, own):
                raise TrainingError(
                    f"{recipe.name}, seed {seed}, is robust to its own attack only from epoch {epoch + 1} on: accuracy "
                    f"{own:.3f} under it, {rows[-1]['accuracy']:.3f} under PGD; try a smaller alpha, or pgd"
                )
            state.epoch = epoch + 1
            state.train_seconds += between - start
            state.eval_seconds += time.perf_counter() - between
            if checkpoint:
                checkpoint(model, optimizer, scheduler, state)
    return state


def _of_training(state: Progress, recipe: Recipe, seed: int) -> Progress:
    training = _training(recipe, seed)
    if state.training not in ("", training):
        raise ValueError(
            f"expected the recipe and the seed of the checkpoint, which has {state.epoch} epochs of another training"
        )
    if state.epoch > recipe.epochs:
        raise ValueError(f"expected at least the checkpoint's {state.epoch} epochs, got {recipe.epochs}")
    state.training = training
    return state


def _training(recipe: Recipe, seed: int) -> str:
    """What a training that goes on must share with its checkpoint; at a constant rate it may become longer."""
    may_differ = {"epochs"} if recipe.optimizer.schedule == "constant" else set()
    same = {name: value for name, value in recipe.to_dict().items() if name not in may_differ}
    return json.dumps({**same, "seed": seed})


def _batches(images: Tensor, labels: Tensor, data: DataConfig, device: torch.device) -> Batches:
    source = images if data.train_band == "x" else _band_of(images, data).half()
    options: dict = {"batch_size": data.batch_size, "augment": data.augment, "rescale": data.rescale}
    return Batches(source, labels, device=device, **options)


def _refuse_ignored(recipe: Recipe, loader: DataLoader | None) -> None:
    """Refuse fields that change nothing where network and images are given, and, with a loader, batches too."""
    usual = Recipe(recipe.name)
    of_data = ["dataset", "train_images", "labels", "planted"]
    size = None if loader is None else loader.batch_size  # None too where a sampler or the data set makes the batches
    if loader is not None:
        of_data = [field for field in vars(usual.data) if field != "batch_size" or size is None]
    ignored = [
        field
        for own, default, names in (
            (recipe.model, usual.model, vars(usual.model)),
            (recipe.data, usual.data, of_data),
            (recipe, usual, ("final_images",)),
        )
        for field in names
        if getattr(own, field) != getattr(default, field)
    ]
    if ignored:
        makes = ", and the DataLoader makes the batches" if loader is not None else ""
        told = f"fit is given the network and the images{makes}: it can't honour {', '.join(ignored)}"
        raise ValueError(f"refused recipe: {told}")
    if size is not None and size != recipe.data.batch_size:
        told = f"a recipe with the batch_size of the DataLoader, {size}, got {recipe.data.batch_size}"
        raise ValueError(f"expected {told}: recipe.with_(batch_size={size})")


@contextmanager
def _evaluated_afterwards(model: nn.Module) -> Iterator[None]:
    try:
        yield
    finally:
        model.eval()


SPREAD = 22  # radii at which images beyond 32 pixels are measured, as many as there are at 32 x 32
SHARES = (0.25, 0.5, 0.75, 1)  # of Nyquist: PAPER_RADII at 32 x 32


def _measured_radii(images: Tensor, recipe: Recipe) -> tuple[Sequence[int], Sequence[int] | None]:
    """The radii at which `fit` measures raw bands, and those of other feeds and statistics, None for PAPER_RADII."""
    height, width = images.shape[-2:]
    if height == width == DATA_SETS[recipe.data.dataset].side:
        return recipe.radii, None
    highest = int(math.hypot(height // 2, width // 2))
    if highest <= SPREAD:
        return range(1, highest + 1), [radius for radius in PAPER_RADII if radius <= highest]
    others = [round(nyquist(share, images)) for share in SHARES]
    spread = [math.ceil(number * highest / SPREAD) for number in range(1, SPREAD + 1)]
    return sorted({*PAPER_RADII, *others, *spread}), others


def _band_of(images: Tensor, data: DataConfig) -> Tensor:
    if data.train_band == "x":
        return pixels(images)
    parts = [split(pixels(block), data.train_radius) for block in images.split(1000)]
    if data.train_band == "sum":
        return torch.cat([low + data.train_scale * high for low, high in parts])
    return torch.cat([part[data.train_band == "hfc"] for part in parts])


def _checked(model: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Images and labels as int64, if the model can be trained and measured on them; else an error, before the work."""
    check_channels_first(check_images(pixels(images[:1]) if isinstance(images, Tensor) else images))
    if images.is_floating_point():
        # Half types round, and attacks take images in [0, 1] only.
        check_pixels(images, tolerance=recipe.data.planted + 0.001 if recipe.attack is None else 0)
    labels = check_labels(labels, images[:, :1, :1, :1].float())
    height, width = images.shape[-2:]
    farthest = math.hypot(height // 2, width // 2)
    if recipe.data.train_band != "x" and recipe.data.train_radius > farthest:
        told = f"of at most {farthest:.1f}, where the spectrum of {height} x {width} pixels ends"
        raise ValueError(f"expected train_radius {told}, got {recipe.data.train_radius}")
    measured, classes = min(len(labels), recipe.eval_images), first_logits(model, pixels(images[:2])).shape[1]
    if labels.max() >= classes:
        raise ValueError(f"expected labels below {classes}, the number of logits, got {labels.max().item()}")
    if uses_batch_statistics(model):
        if measured == 1:
            raise ValueError("expected at least 2 images to measure a network with BatchNorm on, got 1")
        first_logits(model, pixels(images[:2]), "batch")  # refuses a network that can't be measured so
    return images, labels


def as_trained(images: Tensor, recipe: Recipe) -> Tensor:
    """Images (N, C, H, W), as in `fit`, as the recipe trains on them, without augmentation: float32, same shape."""
    return rescaled(_band_of(images, recipe.data), recipe.data.rescale)


def measured_parts(recipe: Recipe, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> Parts:
    """What a run's accuracy is measured on, beside the bands of the test images; `train` and `test` as in `fit`.

    Training images as they are trained on; whole test images; and, if the network is trained on a band, that band of
    the test images.
    """
    whole, data = Condition("x"), recipe.data
    feed = "raw" if data.rescale == "none" else data.rescale
    own = whole if data.train_band == "x" else Condition(data.train_band, data.train_radius, feed)
    parts = {("train", own): (as_trained(train[0], recipe), train[1]), ("test", whole): (pixels(test[0]), test[1])}
    return parts | ({} if own == whole else {("test", own): (as_trained(test[0], recipe), test[1])})
