"""The checks of the attacks: bad images, labels and settings are refused, misleading models warned of."""

import math
import warnings
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hfclib.batching import check_below_infinity, check_labels, check_pixels, tensor_of
from hfclib.devices import arithmetic

DEFAULT_EPS = 8 / 255  # of the Linf ball
NO_GRADIENT = "attacks need gradients through PyTorch, and the logits have none for the images: square does without"


def check_batch(images: Tensor, labels: Tensor) -> Tensor:
    """The labels as int64 on the device of the images; TypeError or ValueError for a bad type, shape or range."""
    labels = check_labels(labels, images)
    if images.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"expected float32 images, got {images.dtype}: its steps are too coarse for an attack")
    check_pixels(images)
    return labels


def per_image(name: str, value: float | Tensor, images: Tensor, norm: str = "l2") -> Tensor:
    """A setting, one number or (N,), as (N, 1, 1, 1); refuses text, negative ones, and with the norm linf above 1."""
    try:
        values = torch.as_tensor(value, dtype=images.dtype, device=images.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"expected {name}, one number or one per image, got {value!r}") from error
    if values.shape not in ((), images.shape[:1]):
        raise ValueError(f"expected {name}, one number or one per image, got shape {tuple(values.shape)}")
    if not (values.isfinite() & (values >= 0)).all():
        raise ValueError(f"expected {name}, finite and at least 0, got {value}")
    if norm not in ("linf", "l2"):
        raise ValueError(f"expected norm, linf or l2, got {norm!r}")
    if norm == "linf" and (values > 1).any():
        raise ValueError(f"expected {name} of at most 1, such as 8 / 255 for pixels in [0, 1], got {value}")
    return values.expand(len(images)).view(-1, 1, 1, 1)


def eps_of(eps: float | Tensor | None, norm: str) -> float | Tensor:
    """The eps, by default DEFAULT_EPS with Linf; ValueError if there is none with L2, where that would be next to 0."""
    if eps is None and norm == "l2":
        raise ValueError("expected eps with the norm l2, which has no default; 0.5 is usual for CIFAR-10")
    return DEFAULT_EPS if eps is None else eps


def number_of(name: str, value: Any) -> float:
    """A setting as a float; TypeError for text, lists and the like, ValueError if it is not finite or negative."""
    if isinstance(value, str | bytes) or value is None or np.ndim(value):
        raise TypeError(f"expected {name}, a number such as 8 / 255, got {value!r}")
    if not 0 <= float(value) < math.inf:
        raise ValueError(f"expected {name}, finite and at least 0, got {value}")
    return float(value)


def check_count(name: str, value: int, least: int) -> None:
    """Raise a ValueError that names a count below `least`, or one that is no whole number."""
    if not isinstance(value, Integral) or value < least:
        raise ValueError(f"expected {name}, a whole number of at least {least}, got {value!r}")


def forward(model: nn.Module, images: Tensor, labels: Tensor, *, amp: bool = False) -> Tensor:
    """The model's logits (N, classes), float32 or float64; ValueError if too few for a label.

    A ValueError too if an image's largest is not finite, or if images require gradients and the logits have none, as
    those of a model that calls NumPy.
    """
    with arithmetic(images.device, amp=amp):
        try:
            # A copy, since some networks normalise their input in place.
            logits = tensor_of(model(images.clone(memory_format=torch.contiguous_format)))
        except RuntimeError as error:
            if images.requires_grad and "numpy()" in str(error):  # which PyTorch refuses of such images
                raise ValueError(NO_GRADIENT) from error
            raise
    if logits.ndim != 2 or len(logits) != len(images) or logits.shape[1] < 2:
        raise ValueError(f"expected logits ({len(images)}, classes) from the model, got {tuple(logits.shape)}")
    check_below_infinity(logits)
    if labels.max() >= logits.shape[1]:
        raise ValueError(f"expected labels below {logits.shape[1]}, the number of logits, got {labels.max().item()}")
    if torch.is_grad_enabled() and images.requires_grad and not logits.requires_grad:
        raise ValueError(NO_GRADIENT)
    return logits if logits.dtype == torch.float64 else logits.float()


def image_gradient(values: Tensor, images: Tensor, weights: Tensor | None = None) -> Tensor:
    """The gradient of values, with `weights` like values, for images; ValueError if they do not depend on images."""
    gradient = torch.autograd.grad(values, images, weights, allow_unused=True)[0]
    if gradient is None:
        raise ValueError(NO_GRADIENT)
    return gradient


@torch.no_grad()
def confirm_in_fp32(
    model: nn.Module, images: Tensor, labels: Tensor, suspects: Tensor, *, targeted: bool = False, amp: bool
) -> Tensor:
    """Which of the `suspects` (N,) bool of bfloat16 fool the model in full precision too; all of them without `amp`."""
    if not amp or not suspects.any():
        return suspects
    fooled, classes = suspects.clone(), labels[suspects]
    fooled[suspects] = is_fooled(forward(model, images[suspects], classes), classes, targeted)
    return fooled


def is_fooled(logits: Tensor, labels: Tensor, targeted: bool = False) -> Tensor:
    """Where an attack has succeeded, (N,) bool: the prediction is not the label; or if targeted it is."""
    return (logits.argmax(dim=1) == labels) == targeted


def warn_if_probabilities(logits: Tensor) -> None:
    """Warn if every row of logits could be a distribution: after a second softmax, gradients are nearly zero."""
    if logits.min() >= 0 and logits.max() <= 1 and ((logits.sum(dim=1) - 1).abs() < 1e-3).all():
        message = "the model seems to return probabilities (rows in [0, 1] that sum to 1), where attacks expect logits"
        warnings.warn(f"{message}: take the softmax off, or the robustness measured is too high", stacklevel=3)


def warn_of_masking(logits: Tensor, gradient: Tensor, wrong: Tensor) -> None:
    """Warn of probabilities, and of images not yet `wrong` (N,) whose gradient (N, C, H, W) is zero everywhere."""
    warn_if_probabilities(logits.detach())
    flat = int(((gradient.flatten(1) == 0).all(dim=1) & ~wrong).sum())
    if flat:
        message = (
            f"the gradient is exactly zero everywhere for {flat} of {len(wrong)} images: PGD does not move, and it"
        )
        warnings.warn(f"{message} may be masked; try loss='margin' or `square`", stacklevel=4)
