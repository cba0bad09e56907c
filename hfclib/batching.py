"""Images and labels of any form as checked batches, and the logits of a network on them."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hfclib.conditions import BnStats, depends_on_batch, evaluating
from hfclib.devices import arithmetic, device_of
from hfclib.frequency import check_images

KEYS = ("image", "images", "pixel_values"), ("label", "labels")  # of batches that are mappings
Labels = Tensor | Sequence[int] | None
BATCH_SIZE = 100  # the authors' test batch; with bn_stats="batch" it is part of the definition


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


def check_pixels(images: Tensor, *, max_abs: float = 1, tolerance: float = 0) -> None:
    """Raise a ValueError if images hold NaN, or pixels outside [0, 1], by more than a tolerance.

    Args:
        images: (N, C, H, W) float.
        max_abs: 1 for images; above 1 for bands, which have to be in [-max_abs, max_abs].
        tolerance: how far images may leave [0, 1] on either side; not used for bands. Rounding is let pass beside it.
    """
    low, high = (-max_abs, max_abs) if max_abs > 1 else (-tolerance, 1 + tolerance)
    rounding = 1e-6  # of images that were normalised, resized, and so on
    if len(images) and not (images.min() >= low - rounding and images.max() <= high + rounding):
        bands = f"bands in [{low}, {high}] or " if max_abs > 1 else ""
        values = f"{images.min().item():.7g} to {images.max().item():.7g}"
        raise ValueError(f"expected {bands}images in [0, 1], got values from {values}")


def batches(model: nn.Module, images: Tensor | Iterable, labels: Labels = None, *, max_abs: float = 1) -> Iterator:
    """Checked batches (images, labels), one at a time: (N, C, H, W) in [0, 1], or +-`max_abs` if above 1; (N,) int64.

    Args:
        model: is fed two images first, so that labels beyond its classes are found before the work.
        images, labels: all of them; or, without labels, an iterable of batches: pairs, or mappings with the keys
            "image", "images" or "pixel_values" and "label" or "labels".
    Raises:
        TypeError, ValueError: images or labels of another type, shape or range, labels beyond the model's classes, what
            the model can't be fed, or no image at all.
    Warns:
        UserWarning: no pixel of the first batch is above 1/255, as if they were divided by 255 twice; or with a
            `max_abs` above 1 some are negative, and their standard deviation is above .35, as if they were
            normalised. That of images in [0, 1] is at most .5 and usually near .25, and a high-frequency component has
            less. Bands with the feed "max" are not judged.
    """
    shape = None
    for batch in images if labels is None else [(images, labels)]:
        part, classes = pair_of(batch)
        classes = check_labels(classes, part)
        if len(part) == 0:
            continue
        check_channels_first(part)
        check_pixels(part, max_abs=max_abs)
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
    """The images and labels of a batch, as in `batches`; ValueError for other keys, TypeError for no batch at all."""
    if not isinstance(batch, Mapping):
        if isinstance(batch, str) or not isinstance(batch, Sequence) or len(batch) != 2:
            many = isinstance(batch, list | tuple) and len(batch) > 2  # an index may stand before the label
            kind = f"{len(batch)} values" if many else "text" if isinstance(batch, str) else type(batch).__name__
            raise TypeError(f"expected images and labels, or batches of both, got {kind} in place of a batch")
        return batch[0], batch[1]
    names = [next((name for name in some if name in batch), None) for some in KEYS]
    if None in names:
        wanted = " and ".join(" or ".join(some) for some in KEYS)
        raise ValueError(f"expected batches with the keys {wanted}, got {', '.join(map(str, batch))}")
    return batch[names[0]], batch[names[1]]


def evaluated_batches(model, images, labels: Labels, bn_stats: BnStats, size: int, *, max_abs: float = 1) -> Iterator:
    """The `batches`, of `size` images each where logits depend on the batch."""
    stream = batches(model, images, labels, max_abs=max_abs)
    whole = labels is None and (bn_stats == "batch" or depends_on_batch(model))
    return whole_batches(stream, size) if whole else stream


def batch_size_of(model: nn.Module, batch_size: int) -> int:
    """The images at once: `batch_size`, or BATCH_SIZE where logits depend on the batch."""
    return BATCH_SIZE if depends_on_batch(model) else batch_size


def batch_sizes(count: int, size: int) -> list[int]:
    """The sizes of the batches of `count` images: `size` each, and a last one of 2 up to size + 1 where it can be.

    Raises:
        ValueError: size is below 1.
    """
    if size < 1:
        raise ValueError(f"expected batch_size, a whole number of at least 1, got {size!r}")
    whole, rest = divmod(count, size)
    if rest == 1 and whole:
        whole, rest = whole - 1, size + 1
    return [size] * whole + [rest] * (rest > 0)


def whole_batches(stream: Iterable[tuple[Tensor, Tensor]], size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The same images and labels in batches of `batch_sizes`.

    Raises:
        ValueError: images of several shapes.
    """
    rest: list[tuple[Tensor, Tensor]] = []
    for batch in stream:
        if rest and rest[0][0].shape[1:] != batch[0].shape[1:]:
            shapes = " and ".join(str(tuple(some.shape[1:])) for some in (rest[0][0], batch[0]))
            raise ValueError(f"expected images of one size, got {shapes}")
        images, labels = map(torch.cat, zip(*rest, batch, strict=True)) if rest else batch
        end = max(len(labels) - 2, 0) // size * size  # so that no image is left alone
        rest = [(images[end:].clone(), labels[end:].clone())]  # a loader may fill the same memory again
        yield from _cut_up(images[:end], labels[:end], size)
    for images, labels in rest:
        yield from _cut_up(images, labels, size)


def _cut_up(images: Tensor, labels: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    sizes = batch_sizes(len(labels), size)
    return zip(images.split(sizes), labels.split(sizes), strict=True) if sizes else iter(())


def check_channels_first(images: Tensor) -> None:
    """Refuse images that seem to be (N, H, W, C), which a network that flattens them would take."""
    if images.shape[-1] in (1, 3, 4) and images.shape[1] not in (1, 3, 4):
        raise ValueError(f"expected images (N, C, H, W), got {tuple(images.shape)}, which seem to be (N, H, W, C)")


def known_size(data: Any) -> int | None:
    """The number of images in a list or tuple of batches or a DataLoader, where it is known before they are read."""
    if isinstance(data, list | tuple):
        return sum(len(pair_of(batch)[0]) for batch in data)
    try:
        known, left_over = len(data.sampler), len(data.sampler) % data.batch_size
    except (AttributeError, TypeError):  # no DataLoader, one that does not know, or one without a size of batches
        return None
    return known - left_over if data.drop_last else known


def logits(
    model: nn.Module, images: Tensor, *, bn_stats: BnStats = "running", batch_size: int = BATCH_SIZE, amp: bool = False
) -> Tensor:
    """Logits of images, in batches, on the model's device, with the model in evaluation mode.

    Args:
        model, images: any module to (N, classes); (N, C, H, W) float, [0, 1] or a band.
        bn_stats: "running" or "batch"; with "batch" the batch size matters, and that a batch mixes the classes.
        batch_size: images at once, in batches of `batch_sizes`.
        amp: bfloat16 arithmetic where the device has it. It rounds to two or three digits, which changes predictions
            where the two largest logits are close, and no bound on an accuracy holds for all networks. Accuracies whose
            predictions are published in both precisions differ by up to .0013; the most that we met is .0052 (BatchNorm
            with a planted signal, LFC at r = 16, batch statistics). On 1,000 images it was .005.
    Returns:
        (N, classes) on the device of the images, float32, or float64 where the model returns that.
    Raises:
        TypeError, ValueError: images are not a non-empty float (N, C, H, W) tensor; bn_stats as in `evaluating`; or the
            model returns no tensor, NaN or infinity.
    """
    check_images(images)
    if len(images) == 0:
        raise ValueError("expected at least one image, got none")
    if bn_stats == "batch" and 1 in (len(images), batch_size):
        raise ValueError("expected batches of 2 images or more to take statistics of, got one image")
    device = device_of(model)
    # Not in inference mode: what a network makes at its first pass and keeps could never be trained.
    with torch.no_grad(), evaluating(model, bn_stats) as check, arithmetic(device, amp=amp):
        # Copies: some networks normalise their input in place, and some callables return the same memory each time.
        own = {"copy": True, "memory_format": torch.contiguous_format}
        batches = (batch.to(device, **own) for batch in images.split(batch_sizes(len(images), batch_size)))
        answers = torch.cat([_kept(tensor_of(model(batch)), images.device) for batch in batches])
        check()
    check_below_infinity(answers)
    return answers


def _kept(answer: Tensor, device: torch.device) -> Tensor:
    return answer.to(device, torch.promote_types(answer.dtype, torch.float32), copy=True)


def check_below_infinity(answers: Tensor) -> None:
    """Refuse logits whose largest would be the first class; a class that the network masks out has minus infinity."""
    if not answers.amax(dim=-1).isfinite().all():
        raise ValueError("expected logits below infinity from the model, got NaN or infinity, or minus infinity only")


def first_logits(model: nn.Module, images: Tensor, bn_stats: BnStats = "running") -> Tensor:
    """`logits` of the first images that a model is fed: what it can't be fed, such as grey images, is a ValueError."""
    try:
        return logits(model, images, bn_stats=bn_stats)
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
