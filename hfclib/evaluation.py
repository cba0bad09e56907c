"""Accuracy of a network on images and on their frequency bands.

Two choices change what is measured:

- feed: "raw" is the band as `split` returns it; "max" divides it by the image's own maximum (the authors' standard
  runs); "mean" adds the mean colour of the data set to an HFC, so that its mean is that of an image.
- bn_stats: BatchNorm normalises by its "running" averages (standard), or by the statistics of each test "batch" of 100
  images (the authors' code).
"""

import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import chain, pairwise, product
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from tqdm import tqdm

from hfclib.data.cifar import MEAN
from hfclib.devices import arithmetic, check_module, device_of
from hfclib.frequency import check_images, each_radius, split, svd_split
from hfclib.transforms import FEEDS, Feed, feed_images

KEYS = ("image", "images", "pixel_values"), ("label", "labels")  # of batches that are mappings
Labels = Tensor | Sequence[int] | None
BnStats = Literal["running", "batch"]
BN_STATS: tuple[BnStats, ...] = ("running", "batch")
PAPER_RADII = (4, 8, 12, 16)
BATCH_SIZE = 100  # the authors' test batch; with bn_stats="batch" it is part of the definition
Cut = Literal["fourier", "svd"]
BANDS: dict[Cut, tuple[str, str]] = {"fourier": ("lfc", "hfc"), "svd": ("svd_low", "svd_high")}
CURVE_COLUMNS = ["split", "band", "radius", "feed", "bn_stats", "images", "accuracy"]


class Condition(NamedTuple):
    """What a network is fed, and how its BatchNorm normalises; `feed` and `bn_stats` as in `hfclib.evaluation`."""

    band: str  # "x" for whole images, "lfc", "hfc", "svd_low" or "svd_high"
    radius: float = 0  # of the cut, in DFT bins; 0 with "x"
    feed: Feed = "raw"
    bn_stats: BnStats = "running"

    def canonical(self, batch_norm: bool) -> "Condition":
        """The one of several equivalent conditions that is measured and stored."""
        # A low part with the mean colour is the raw one, and without BatchNorm both kinds of statistics are one.
        same = self.band in ("lfc", "svd_low") and self.feed == "mean"
        return self._replace(feed="raw" if same else self.feed, bn_stats=self.bn_stats if batch_norm else "running")


class _BatchStatistics(TorchFunctionMode):
    """In this thread alone, each call of BatchNorm's function normalises by the batch; no module is changed."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.batch_norm:
            return _by_batch(*args, **kwargs or {})
        return func(*args, **kwargs or {})


def _by_batch(maps, mean, var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    return F.batch_norm(maps, None, None, weight, bias, True, momentum, eps)


@contextmanager
def evaluating(model: nn.Module, bn_stats: BnStats = "running") -> Iterator[None]:
    """A context with the model in evaluation mode, which is restored, and BatchNorm with the chosen statistics.

    Other threads may use the model meanwhile, if it was in evaluation mode before: then nothing of it changes.

    Raises:
        ValueError: another bn_stats, or "batch" with a model whose statistics can't be chosen: TorchScript, an exported
            program, frozen BatchNorm, several GPUs (DataParallel), or a callable in which no module is found.
    """
    if bn_stats not in BN_STATS:
        raise ValueError(f"expected bn_stats, one of {', '.join(BN_STATS)}, got {bn_stats!r}")
    roots = [model, *_hidden(model)]
    modes = [(module, module.training) for module in _all_modules(model) if hasattr(module, "training")]
    if bn_stats == "batch":
        _check_statistics_can_be_chosen(model)
    try:
        for root in roots:
            try:
                root.eval()
            except NotImplementedError as error:  # of an exported program
                advice = "give hfclib.Classifier a function that calls it, if it was exported in evaluation mode"
                told = f"expected a model with an evaluation mode, got an exported program: {advice}"
                if root is model:
                    raise ValueError(told) from error
                if bn_stats == "batch":
                    raise ValueError(f'expected bn_stats "running" with an exported program, {_FIXED}') from error
        with _BatchStatistics() if bn_stats == "batch" else nullcontext():
            yield
    finally:
        for module, mode in modes:  # by its own method, since some merge or split their weights there
            if module.training != mode:
                with suppress(NotImplementedError):  # of an exported program
                    module.train(mode)
        for module, mode in modes:
            module.training = mode


_FIXED = "whose BatchNorm can't be switched"


def _check_statistics_can_be_chosen(model: nn.Module) -> None:
    for module in _all_modules(model):
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(f'expected bn_stats "running" with a TorchScript model, {_FIXED}')
        if _is_frozen_norm(module):
            found = f"{type(module).__name__}, which normalises by its running averages always"
            raise ValueError(f'expected bn_stats "running", got "batch" with a {found}')
        if isinstance(module, nn.DataParallel) and len(module.device_ids) > 1:
            raise ValueError('expected bn_stats "running" with DataParallel, which cuts batches up: give its module')
        if getattr(module, "no_module_found", False):
            advice = "give the module itself, or a function that refers to it"
            raise ValueError(f'expected bn_stats "running" with a callable in which no module is found: {advice}')


def _hidden(model: nn.Module) -> list[nn.Module]:
    """The modules that callables within the model refer to, which are not parts of it; see `Classifier`."""
    check_module(model)
    return [hidden for module in model.modules() for hidden in getattr(module, "modules_behind", ())]


def _all_modules(model: nn.Module) -> list[nn.Module]:
    """The parts of the model, then those of the modules that callables within it refer to."""
    return list(dict.fromkeys(module for root in [model, *_hidden(model)] for module in root.modules()))


def _is_frozen_norm(module: nn.Module) -> bool:
    # Torchvision, timm and Detectron2 have a class of this name each, none of them a BatchNorm of PyTorch.
    return any(kind.__name__.startswith("FrozenBatchNorm") for kind in type(module).__mro__)


def _batch_norms(model: nn.Module) -> list[nn.Module]:
    return [module for module in _all_modules(model) if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def uses_batch_statistics(model: nn.Module) -> bool:
    """Whether the model has a BatchNorm layer, so that `bn_stats` makes a difference.

    Beside frozen BatchNorm layers, whose statistics can't be chosen, the others count as frozen too.
    """
    return bool(_batch_norms(model)) and not any(map(_is_frozen_norm, _all_modules(model)))


def logits(
    model: nn.Module, images: Tensor, *, bn_stats: BnStats = "running", batch_size: int = BATCH_SIZE, amp: bool = False
) -> Tensor:
    """Logits of images, in batches, on the model's device, with the model in evaluation mode.

    Args:
        model, images: any module to (N, classes); (N, C, H, W) float, [0, 1] or a band.
        bn_stats: "running" or "batch"; with "batch" the batch size matters.
        batch_size: images at once, in batches of `batch_sizes`.
        amp: bfloat16 arithmetic where the device has it. It rounds to two or three digits, which changes predictions
            where the two largest logits are close, and no bound on an accuracy holds for all networks. Accuracies whose
            predictions are published in both precisions differ by up to .0012; the most that we met is .0052 (BatchNorm
            with a planted signal, LFC at r = 16, batch statistics).
    Returns:
        (N, classes) float32 on the device of the images.
    Raises:
        TypeError, ValueError: images are not a non-empty float (N, C, H, W) tensor; bn_stats as in `evaluating`; or the
            model returns no tensor, or NaN.
    """
    check_images(images)
    if len(images) == 0:
        raise ValueError("expected at least one image, got none")
    if bn_stats == "batch" and 1 in (len(images), batch_size):
        raise ValueError("expected batches of 2 images or more to take statistics of, got one image")
    device = device_of(model)
    # Not in inference mode: what a network makes at its first pass and keeps could never be trained.
    with torch.no_grad(), evaluating(model, bn_stats), arithmetic(device, amp=amp):
        # Copies: some networks normalise their input in place, and some callables return the same memory each time.
        own = {"copy": True, "memory_format": torch.contiguous_format}
        batches = (batch.to(device, **own) for batch in images.split(batch_sizes(len(images), batch_size)))
        found = torch.cat([tensor_of(model(batch)).to(images.device, torch.float32, copy=True) for batch in batches])
    if found.isnan().any():  # whose largest would be the first class
        raise ValueError("expected logits that are numbers from the model, got NaN")
    return found


def first_logits(model: nn.Module, images: Tensor) -> Tensor:
    """`logits` of the first images that a model is fed: what it can't be fed, such as grey images, is a ValueError."""
    try:
        return logits(model, images)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"the model fails on images {tuple(images.shape)}, {images.dtype}: {told}") from error


def tensor_of(output: object) -> Tensor:
    """What a model returned, if it is a tensor, else a TypeError."""
    if not isinstance(output, Tensor):
        kind = type(output).__name__
        raise TypeError(f"expected a tensor of logits from the model, got {kind}: hfclib.Classifier finds them in it")
    return output


def accuracy(model: nn.Module, images: Tensor | Iterable, labels: Labels = None, **options) -> float:
    """Share of images whose largest logit is at their label.

    Args:
        model, images, labels: any module to (N, classes); whole images, or bands with pixels from -100 to 100,
            (N, C, H, W) float, and (N,) whole numbers, or batches of them; see `batches`.
        options: bn_stats, batch_size and amp, as in `logits`.
    Returns:
        A share in [0, 1], exact: 54 of 60 images are 54 / 60.
    Warns:
        UserWarning: the first batch is as of images that are normalised, or divided by 255 twice; see `batches`.
    Raises:
        TypeError, ValueError: as `logits`; labels of another number, type or range; or batches with other keys.
    """
    how = options.get("bn_stats", "running"), options.get("batch_size", BATCH_SIZE)
    stream = evaluated_batches(model, images, labels, *how, most=100)
    correct, total = 0, 0
    for part, classes in stream:
        correct, total = (
            correct + int((logits(model, part, **options).argmax(dim=1) == classes).sum()),
            total + len(part),
        )
    return correct / total


def batches(model: nn.Module, images: Tensor | Iterable, labels: Labels = None, *, most: float = 1) -> Iterator:
    """Checked batches (images, labels), one at a time: (N, C, H, W) in [0, 1], or +-`most` if above 1; (N,) int64.

    Args:
        model: is fed two images first, so that labels beyond its classes are found before the work.
        images, labels: all of them; or, without labels, an iterable of batches: pairs, or mappings with the keys
            "image", "images" or "pixel_values" and "label" or "labels".
    Warns:
        UserWarning: no pixel of the first batch is above 1/255, as if they were divided by 255 twice; or with a `most`
            above 1 some are negative, and their standard deviation is above .35, as if they were normalised. That of
            images in [0, 1] is at most .5 and usually near .25, and a high-frequency component has less. Bands with the
            feed "max" are not judged.
    """
    shape = None
    for batch in images if labels is None else [(images, labels)]:
        part, classes = pair_of(batch)
        classes = check_labels(classes, part)
        if len(part) == 0:
            continue
        if part.shape[-1] in (1, 3, 4) and part.shape[1] not in (1, 3, 4):
            raise ValueError(f"expected images (N, C, H, W), got {tuple(part.shape)}, which seem to be (N, H, W, C)")
        check_pixels(part, most)
        if shape is None:
            _warn_of_scale(part)
        shape = shape or first_logits(model, torch.cat([part, part])[:2] if len(part) == 1 else part[:2]).shape
        if len(shape) != 2 or shape[0] != 2 or shape[1] < 2:
            found = f"{tuple(shape)} for 2 images; classes are 2 or more"
            raise ValueError(f"expected logits (N, classes) from the model, got {found}")
        if classes.max() >= shape[1]:
            raise ValueError(f"expected labels below {shape[1]}, the number of logits, got {classes.max()}")
        yield part, classes
    if shape is None:
        raise ValueError("expected at least one image, got none")


def _warn_of_scale(images: Tensor) -> None:
    """Warn by the statistics of a batch if it is no images or bands of images in [0, 1]."""
    least, most = images.min().item(), images.max().item()
    advice = None
    if least >= 0 and 0 < most <= 1.001 / 255:
        advice = "they seem to be divided by 255 twice"
    elif least < -0.2 and images.float().std(correction=0) > 0.35 and not _fed_by_maximum(images):
        advice = "they seem to be normalised: give hfclib.Classifier the mean and std in place of that"
    if advice:
        message = f"expected images with pixels in [0, 1], or their bands, got values from {least:.3g} to {most:.3g}"
        warnings.warn(f"{message}; {advice}", stacklevel=4)


def _fed_by_maximum(images: Tensor) -> bool:
    """Whether the largest value of each image is 1, as the feed "max" makes it."""
    return bool(((images.flatten(1).amax(dim=1) - 1).abs() < 1e-3).all())


def pair_of(batch: Mapping | Sequence) -> tuple:
    """The images and labels of a batch, as in `batches`; ValueError for a mapping with other keys."""
    if not isinstance(batch, Mapping):
        return batch[0], batch[1]
    names = [next((name for name in some if name in batch), None) for some in KEYS]
    if None in names:
        wanted = " and ".join(" or ".join(some) for some in KEYS)
        raise ValueError(f"expected batches with the keys {wanted}, got {', '.join(map(str, batch))}")
    return batch[names[0]], batch[names[1]]


def evaluated_batches(model, images, labels: Labels, bn_stats: BnStats, size: int, *, most: float = 1) -> Iterator:
    """The `batches`, of `size` images each where logits depend on the batch."""
    stream = batches(model, images, labels, most=most)
    whole = labels is None and (bn_stats == "batch" or depends_on_batch(model))
    return whole_batches(stream, size) if whole else stream


def depends_on_batch(model: nn.Module) -> bool:
    """Whether an image's logits depend on its batch: by `matched`, or by a BatchNorm that keeps no running averages."""
    matched = any(getattr(module, "by_batch", False) for module in _all_modules(model))
    return matched or any(norm.running_mean is None for norm in _batch_norms(model))


def batch_sizes(count: int, size: int) -> list[int]:
    """The sizes of the batches of `count` images: `size` each, and a last one of 2 up to size + 1 where it can be."""
    if size < 1:
        raise ValueError(f"expected batch_size, a whole number of at least 1, got {size!r}")
    whole, rest = divmod(count, size)
    if rest == 1 and whole:
        whole, rest = whole - 1, size + 1
    return [size] * whole + [rest] * (rest > 0)


def whole_batches(stream: Iterable[tuple[Tensor, Tensor]], size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The same images and labels in batches of `batch_sizes`."""
    rest: list = []
    for batch, following in pairwise(chain(stream, [None])):
        if rest and rest[0][0].shape[1:] != batch[0].shape[1:]:
            shapes = " and ".join(str(tuple(some.shape[1:])) for some in (rest[0][0], batch[0]))
            raise ValueError(f"expected images of one size, got {shapes}")
        images, labels = map(torch.cat, zip(*rest, batch, strict=True)) if rest else batch
        end = max(len(labels) - 2, 0) // size * size if following else len(labels)  # no image is left alone
        rest = [(images[end:], labels[end:])]
        if end:
            yield from zip(*(some[:end].split(batch_sizes(end, size)) for some in (images, labels)), strict=True)


def known_size(data: Iterable) -> int | None:
    """The number of images in a list or tuple of batches or a DataLoader, where it is known before they are read."""
    if isinstance(data, list | tuple):
        return sum(len(pair_of(batch)[0]) for batch in data)
    try:
        known, left_over = len(data.sampler), len(data.sampler) % data.batch_size
    except (AttributeError, TypeError):  # no DataLoader, one that does not know, or one without a size of batches
        return None
    return known - left_over if data.drop_last else known


def check_labels(labels: Tensor | Sequence[int], images: Tensor) -> Tensor:
    """Labels as int64 (N,) on the device of images (N, C, H, W); TypeError or ValueError for others."""
    check_images(images)
    labels = labels if isinstance(labels, Tensor) else torch.as_tensor(labels, device=images.device)
    if labels.shape != images.shape[:1]:
        raise ValueError(f"expected one label per image, got labels {tuple(labels.shape)} for {len(images)} images")
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"expected labels, a tensor of whole numbers, got {labels.dtype}")
    labels = labels.to(images.device, torch.int64)
    if len(labels) and labels.min() < 0:
        raise ValueError(f"expected labels of at least 0, got {labels.min().item()}")
    return labels


def check_pixels(images: Tensor, most: float = 1, *, beyond: float = 0) -> None:
    """Raise a ValueError if images are NaN, or leave [-beyond, 1 + beyond], or [-most, most] if that is above 1."""
    least, most = (-beyond, 1 + beyond) if most == 1 else (-most, most)
    rounding = 1e-6  # of images that were normalised, resized, and so on
    if len(images) and not (images.min() >= least - rounding and images.max() <= most + rounding):
        low, high = images.min().item(), images.max().item()
        bands = "" if most == 1 else f"bands in [{least}, {most}] or "
        raise ValueError(f"expected {bands}images in [0, 1], got values from {low:.7g} to {high:.7g}")


def mean_colour(images: Tensor | Iterable, *, progress: bool = False) -> list[float]:
    """The mean colour of images, one number per channel, as the feed "mean" adds it to an HFC.

    Args:
        images: (N, C, H, W) float in [0, 1], or batches of images and labels that can be read again, see `batches`.
        progress: show a bar, on a terminal.
    Raises:
        TypeError, ValueError: no images, or others than these; or batches that can be read only once.
    """
    if isinstance(images, Tensor):
        check_images(images)
        check_pixels(images)
        if len(images) == 0:
            raise ValueError("expected at least one image, got none")
        return images.mean(dim=(0, 2, 3)).tolist()
    parts = tqdm(_read_again(images), "mean colour", disable=None if progress else True, leave=False)
    return _mean_of(pair_of(batch)[0] for batch in parts)[0]


def _read_again(stream: Iterable) -> Iterable:
    if iter(stream) is stream:
        wanted = "colour, or data that can be read more than once, such as a DataLoader"
        raise ValueError(f"expected {wanted}, got an iterator: its mean colour is known only at its end")
    return stream


def _mean_of(parts: Iterable[Tensor]) -> tuple[list[float], int]:
    """The mean colour of all images, and their number."""
    total, count = 0, 0
    for part in parts:
        check_images(part)
        check_pixels(part)
        count += len(part)
        # Summed in float64: the last bits of float32 hang on the size and the order of the batches.
        total = total + part.mean(dim=(2, 3), dtype=torch.float32).to("cpu", torch.float64).sum(dim=0)
    if count == 0:
        raise ValueError("expected at least one image, got none")
    return (total / count).tolist(), count


def band_conditions(
    radii: Iterable[float], batch_norm: bool, other_radii: Iterable[float] | None = None
) -> Iterator[Condition]:
    """The canonical conditions, by radius: raw bands with running statistics at `radii`, all others at `other_radii`.

    By default the other radii are those of PAPER_RADII among `radii`.
    """
    radii = list(radii)
    others = [radius for radius in PAPER_RADII if radius in radii] if other_radii is None else list(other_radii)
    for radius, bn_stats, feed, band in product(sorted({*radii, *others}), BN_STATS, FEEDS, ("hfc", "lfc")):
        condition = Condition(band, radius, feed, bn_stats)
        listed = radii if (feed, bn_stats) == ("raw", "running") else others
        if radius in listed and condition == condition.canonical(batch_norm):
            yield condition


def band_accuracy(
    model: nn.Module,
    images: Tensor | Iterable,
    labels: Labels = None,
    radii: float | Sequence[float] = PAPER_RADII,
    *,
    feed: Feed = "mean",
    bn_stats: BnStats = "running",
    colour: Sequence[float] | None = None,
    amp: bool = False,
) -> pd.DataFrame:
    """Accuracy on the LFC and HFC of images at each radius.

    Args:
        model, images, labels: any module to (N, classes), or a `Classifier`; see `batches`.
        radii: one or more, in DFT bins, 0 or at least 1; `hfclib.nyquist` converts shares of the Nyquist frequency.
        feed, bn_stats, amp: see `hfclib.evaluation` and `logits`.
        colour: what "mean" adds, a number per channel; None takes that of all the images (`mean_colour`): batches are
            then read twice, first for their colour.
    Returns:
        One row per radius and band: radius, band ("lfc", "hfc"), feed, bn_stats, images (number), accuracy in [0, 1].
    Raises:
        TypeError, ValueError: as `accuracy`; images outside [0, 1]; a negative radius, or one between 0 and 1; or no
            colour, and batches that can be read only once or are others the second time.
    Source: paper, section 4.2 and Fig. 5.
    """
    cuts = list(product(each_radius(radii), ("lfc", "hfc")))
    correct, total, seen = [0] * len(cuts), 0, None
    if colour is None and feed == "mean":
        if labels is None:  # labels and sizes are checked on the way, before the network is asked for all the images
            colour, seen = _mean_of(part for part, _ in batches(model, _read_again(images)))
        else:
            check_images(images)
            colour = mean_colour(images)
        logging.getLogger(__name__).info("the mean colour of %s images is %s", seen or len(images), colour)
    for part, classes in evaluated_batches(model, images, labels, bn_stats, BATCH_SIZE):
        wanted = [Condition(band, radius, feed, bn_stats) for radius, band in cuts]
        for place, row in enumerate(_measure(model, part, classes, wanted, amp=amp, colour=colour)):
            correct[place] += round(row["accuracy"] * len(part))
        total += len(part)
    if seen not in (None, total):
        raise ValueError(f"expected the same images each time they are read, got {seen} and then {total}: give colour")
    rows = [(*cut, feed, bn_stats, total, count / total) for cut, count in zip(cuts, correct, strict=True)]
    return pd.DataFrame(rows, columns=["radius", "band", "feed", "bn_stats", "images", "accuracy"])


def _measure(model, images, labels, wanted: Iterable[Condition], *, amp, kept=None, colour=MEAN) -> Iterator[dict]:
    labels, wanted, known = check_labels(labels, images), list(wanted), dict(kept or {})
    inputs = each_fed(images, (condition for condition in wanted if condition not in known), colour)
    for condition in wanted:
        predictions = known.get(condition)
        if predictions is None:
            predictions = logits(model, next(inputs), bn_stats=condition.bn_stats, amp=amp).argmax(dim=1)
        if kept is not None:
            kept[condition] = predictions.to("cpu", torch.uint8)
        accuracy = (predictions == labels.to(predictions.device)).float().mean().item()
        yield condition._asdict() | {"images": len(images), "accuracy": accuracy}


def each_fed(images: Tensor, conditions: Iterable[Condition], colour: Sequence[float]) -> Iterator[Tensor]:
    """What a network is fed under each condition, one after the other; images are split once for a radius in a row."""
    factors, cut, parts = None, None, {}
    for band, radius, feed, _ in conditions:
        svd = band.startswith("svd")
        if band != "x" and (svd, radius) != cut:
            if svd and factors is None:
                factors = torch.linalg.svd(images, full_matrices=False)
            low, high, *_ = svd_split(images, radius, factors=factors) if svd else split(images, radius)
            cut, parts = (svd, radius), dict(zip(BANDS["svd" if svd else "fourier"], (low, high), strict=True))
        high = band in ("hfc", "svd_high")
        yield feed_images(images if band == "x" else parts[band], feed, add_mean=high, colour=colour)


def training_band_rows(
    model: nn.Module, images: Tensor, labels: Tensor, radii: Iterable[float] = PAPER_RADII
) -> list[dict]:
    """Rows (CURVE_COLUMNS) on the raw bands of training images, at some radii. Source: paper, Fig. 3."""
    statistics = BN_STATS if uses_batch_statistics(model) else BN_STATS[:1]
    wanted = [Condition(band, r, "raw", s) for r, s, band in product(radii, statistics, ("lfc", "hfc"))]
    return [{"split": "train", **row} for row in _measure(model, images, labels, wanted, amp=True)]


class Part(NamedTuple):
    """Images (N, C, H, W) float on which a run measures the accuracy, and their columns; "x" is the whole image."""

    split: str
    images: Tensor
    labels: Tensor
    band: str = "x"
    radius: int = -1
    feed: str = "raw"


def curve_rows(
    model: nn.Module,
    parts: Sequence[Part],
    test: tuple[Tensor, Tensor],
    radii: Iterable[float],
    *,
    other_radii: Iterable[float] | None = None,
    exact: bool = False,
    kept: dict | None = None,
    colour: Sequence[float] = MEAN,
) -> list[dict]:
    """The rows (CURVE_COLUMNS) that a run records after an epoch: the parts, then every band of `band_conditions`.

    Args:
        parts, test: whole images; and (images float in [0, 1], labels), whose bands are measured at `radii`.
        other_radii: of other feeds and statistics, as in `band_conditions`.
        exact: float32 for the parts, so that another machine gets the same accuracy; bands may use bfloat16.
        kept: known predictions by `Condition`, (N,) uint8; the others are added.
        colour: the mean of the data set, as in `band_accuracy`.
    """
    batch_norm, rows = uses_batch_statistics(model), []
    for part in parts:
        for bn_stats in BN_STATS if batch_norm else BN_STATS[:1]:
            measured = accuracy(model, part.images, part.labels, bn_stats=bn_stats, amp=not exact)
            measured = np.float32(measured).item()  # the precision in which runs store accuracies
            values = part.split, part.band, part.radius, part.feed, bn_stats, len(part.labels), measured
            rows.append(dict(zip(CURVE_COLUMNS, values, strict=True)))
    options = {"amp": True, "kept": kept, "colour": colour}
    measured = _measure(model, *test, band_conditions(radii, batch_norm, other_radii), **options)
    return rows + [{"split": "test", **row} for row in measured]


def misaligned(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    radius: float,
    *,
    cut: Cut = "fourier",
    feed: Feed = "raw",
    colour: Sequence[float] | None = None,
    **options,
) -> Tensor:
    """Which images, (N,) bool, are classified correctly as they are and by their high part, but not by their low part.

    Args:
        model, images, labels, radius: a module and tensors as in `band_accuracy`, and one radius.
        cut: "fourier" for LFC and HFC, "svd" for the parts of `svd_split`.
        feed, colour: of the two parts, as in `band_accuracy`, but raw unless told otherwise; the image itself is fed as
            it is. None takes the mean of these images.
        options: bn_stats, batch_size and amp, as in `logits`.
    Raises:
        TypeError, ValueError: as `band_accuracy`, or another cut.
    Source: paper, Fig. 2.
    """
    (radius,) = each_radius(radius)
    ((images, labels),) = batches(model, images, labels)
    if cut not in BANDS:
        raise ValueError(f"expected cut, one of {', '.join(BANDS)}, got {cut!r}")
    low, high, *_ = split(images, radius) if cut == "fourier" else svd_split(images, radius)
    colour = images.mean(dim=(0, 2, 3)).tolist() if colour is None else colour
    fed = images, feed_images(high, feed, add_mean=True, colour=colour), feed_images(low, feed)
    correct, by_high, by_low = (logits(model, one, **options).argmax(dim=1) == labels for one in fed)
    return correct & by_high & ~by_low
