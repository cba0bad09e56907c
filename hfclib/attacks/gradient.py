"""FGSM and PGD: from images in [0, 1] to adversarial images in [0, 1].

Both return images; `robustness` scores them. The model must be on the device of the images, is attacked in evaluation
mode, and is left as it was. The random numbers of each image come from a stream of its own (`rng`), so that its attack
does not depend on the batch that it is in.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, fields
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hfclib.attacks import checks
from hfclib.attacks.rng import PerImageRNG
from hfclib.conditions import evaluating
from hfclib.devices import arithmetic

AttackNorm = Literal["linf", "l2"]
Loss = Literal["cross_entropy", "margin"]
Band = Callable[[Tensor], Tensor] | None
Objective = Callable[[Tensor, Tensor], Tensor]  # (logits, labels) -> (N,)
_BAND_ROUNDS = 5  # after which a thousandth of a perturbation's energy is left outside its band


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float | Tensor | None = None,
    alpha: float | Tensor | None = None,
    steps: int = 10,
    norm: AttackNorm = "linf",
    random_start: bool = True,
    restarts: int = 1,
    targeted: bool = False,
    band: Band = None,
    seed: int | None = None,
    indices: Tensor | None = None,
    loss: Loss = "cross_entropy",
    stop_early: bool = False,
    amp: bool = False,
) -> Tensor:
    """Projected gradient ascent on the loss within a ball around each image.

    Args:
        model: any module from (N, C, H, W) in [0, 1] to logits (N, classes), on the device of the images.
        images, labels: (N, C, H, W) float32 or float64 in [0, 1]; (N,) whole numbers from 0 to classes - 1.
        eps: radius of the ball in units of pixels in [0, 1], 0 or more, with Linf up to 1; one number or (N,). None is
            8 / 255 with Linf; with L2 it has to be given, such as 0.5.
        alpha: length of a step in `norm`, same units, one number or (N,); None for eps / 4.
        steps: number of steps, 0 or more.
        norm: of the ball and of the step.
        random_start: start at a point drawn uniformly from the ball, then clipped to [0, 1]; else at the image.
        restarts: number of random starts, 1 or more. Each image keeps the one that fools the model, or of highest loss.
        targeted: labels are the classes that the model is to predict; it is fooled where it does.
        band: a linear filter such as `LowPass(8)` that the perturbation is to pass unchanged. The last clipping,
            to [0, 1] and the ball, puts a little of it elsewhere: a thousandth of its energy on CIFAR-10.
        seed: of the random starts, 0 or more; None draws one from PyTorch's own generator.
        indices: (N,) whole numbers from 0, the images' places in the data; None for 0 to N - 1. The random start of an
            image depends on them and on the seed alone, see `rng`.
        loss: "cross_entropy", or "margin" (the largest other logit minus the label's), which cannot saturate.
        stop_early: attack an image no further once it is fooled, at the start included. Otherwise the last step counts.
        amp: gradients in bfloat16 where the device has it; full precision decides whether an image is fooled.
    Returns:
        adv_images like images: in [0, 1], within eps of images up to rounding (1e-6).
    Raises:
        TypeError, ValueError: a bad argument, or a model whose logits or gradients are not finite, whose logits are too
            few for the labels, or have no gradient in PyTorch for the images.
    Warns:
        UserWarning: the model seems to return probabilities, or a correctly classified image has no gradient at all.
    Source: Madry et al., ICLR 2018.
    """
    labels, eps = checks.check_batch(images, labels), checks.per_image("eps", checks.eps_of(eps, norm), images, norm)
    alpha = eps / 4 if alpha is None else checks.per_image("alpha", alpha, images)
    checks.check_count("steps", steps, 0)
    checks.check_count("restarts", restarts, 1)
    if loss not in _LOSSES:
        raise ValueError(f"expected loss, cross_entropy or margin, got {loss!r}")
    objective = _LOSSES[loss] if not targeted else lambda logits, labels: -_LOSSES[loss](logits, labels)
    settings = _PgdSettings(steps, norm, band, objective, targeted, stop_early, amp)
    rng = PerImageRNG(len(images), seed, indices) if random_start else None
    # Gradients are needed also where the caller has them switched off; tensors of its inference mode must be copied.
    with torch.inference_mode(False), torch.enable_grad(), evaluating(model):
        images, labels, eps, alpha = (tensor.detach().clone() for tensor in (images, labels, eps, alpha))
        best, losses = images.clone(), images.new_full((len(images),), -math.inf)
        fooled = torch.zeros_like(labels, dtype=torch.bool)
        for _ in range(restarts):
            which = (~fooled if stop_early else torch.ones_like(fooled)).nonzero().squeeze(1)
            if len(which) == 0:
                break
            state = _PgdState(which, images[which], labels[which], eps[which], images[which], alpha[which])
            if rng:
                state.points = start(state.images, state.eps, norm, rng, which, band)
            adv_images = images.clone()
            _pgd_steps(model, state, adv_images, settings)
            if restarts == 1:
                return adv_images
            adv_images, classes = adv_images[which], labels[which]
            with torch.no_grad():
                logits = checks.forward(model, adv_images, classes)
                values, wrong = objective(logits, classes).to(losses), checks.is_fooled(logits, classes, targeted)
            better = (wrong & ~fooled[which]) | ((wrong == fooled[which]) & (values > losses[which]))
            place = which[better]
            best[place], losses[place], fooled[place] = adv_images[better], values[better], wrong[better]
    return best


@dataclass
class PerImageState:
    """What an attack keeps for each image that it still moves: every field has one row per image."""

    place: Tensor  # (N,) its number in the batch that was given
    images: Tensor  # (N, C, H, W) as given
    labels: Tensor  # (N,)
    eps: Tensor  # (N, 1, 1, 1)
    points: Tensor  # like images, where the attack stands

    def keep(self, mask: Tensor) -> None:
        """Drop the images where `mask`, (N,) bool, is False."""
        for field in fields(self):
            value = getattr(self, field.name)
            setattr(self, field.name, None if value is None else value[mask])


@dataclass
class _PgdState(PerImageState):
    alpha: Tensor  # (N, 1, 1, 1)


@dataclass(frozen=True)
class _PgdSettings:
    """What is alike for all images; see `pgd`."""

    steps: int
    norm: AttackNorm
    band: Band
    objective: Objective
    targeted: bool
    stop_early: bool
    amp: bool


def _pgd_steps(model: nn.Module, state: _PgdState, adv_images: Tensor, settings: _PgdSettings) -> None:
    """PGD from `state.points`, into `adv_images` at `state.place`: gradient of the loss, step along it, projection."""
    norm, band, targeted, amp = settings.norm, settings.band, settings.targeted, settings.amp
    for step in range(settings.steps):
        logits, _, gradient = gradients(model, state.points, state.labels, settings.objective, amp=amp)
        wrong = checks.is_fooled(logits, state.labels, targeted)
        if step == 0:
            checks.warn_of_masking(logits, gradient, wrong)
        if settings.stop_early:
            wrong = checks.confirm_in_fp32(model, state.points, state.labels, wrong, targeted=targeted, amp=amp)
            adv_images[state.place[wrong]] = state.points[wrong]
            gradient = gradient[~wrong]
            state.keep(~wrong)
            if len(state.place) == 0:
                return
        moved = state.points + state.alpha * direction(band(gradient) if band else gradient, norm)
        state.points = projected(moved, state.images, state.eps, norm, band)
    adv_images[state.place] = state.points


def gradients(
    model: nn.Module, points: Tensor, labels: Tensor, objective: Objective, *, amp: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The logits (N, classes) of points (N, C, H, W), their `objective` (N,), and its gradient like points.

    Raises:
        ValueError: a gradient that is not finite.
    """
    points = points.detach().requires_grad_()
    with nullcontext() if amp else arithmetic(points.device, amp=False):  # the way back in full precision too
        logits = checks.forward(model, points, labels, amp=amp)
        values = objective(logits, labels)
        gradient = checks.image_gradient(values.sum(), points)
    if not gradient.isfinite().all():
        raise ValueError("expected a finite gradient of the loss, got NaN or infinity")
    return logits.detach(), values.detach(), gradient


def fgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float | Tensor | None = None,
    norm: AttackNorm = "linf",
    **options,
) -> Tensor:
    """One step of length eps along the sign of the gradient, from the image itself; arguments and errors as in `pgd`.

    Source: Goodfellow et al., ICLR 2015.
    """
    eps = checks.eps_of(eps, norm)
    return pgd(model, images, labels, eps=eps, alpha=eps, norm=norm, steps=1, random_start=False, **options)


def direction(gradient: Tensor, norm: AttackNorm) -> Tensor:
    """The steepest step of length 1 in `norm` for each gradient, (N, C, H, W); zero where the gradient is zero."""
    if norm == "linf":
        return gradient.sign()
    scaled = gradient / gradient.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-30)  # else its squares underflow
    return scaled / _length(scaled)


def projected(moved: Tensor, images: Tensor, eps: Tensor | float, norm: AttackNorm, band: Band = None) -> Tensor:
    """Points moved back into the ball of eps around images, then into [0, 1], still in the ball.

    Where eps is a tensor, it is (N, 1, 1, 1). With a band, points are moved into it and back in turns, which ends near
    one of both.
    """
    if band:
        for _ in range(_BAND_ROUNDS):
            moved = projected(images + band(moved - images), images, eps, norm)
    if norm == "linf":
        return moved.maximum(images - eps).minimum(images + eps).clamp(0, 1)
    delta = moved - images
    return (images + delta * (eps / _length(delta)).clamp(max=1)).clamp(0, 1)


def _length(vectors: Tensor) -> Tensor:
    return vectors.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)  # never a division by zero


def start(images: Tensor, eps: Tensor, norm: AttackNorm, rng: PerImageRNG, which: Tensor, band: Band = None) -> Tensor:
    """A point drawn uniformly from the ball of eps around each image, then clipped to [0, 1].

    `which` says which images of `rng` these are.
    """
    if norm == "linf":
        delta = 2 * rng.numbers(which, images.shape[1:]) - 1
    else:
        towards = direction(rng.numbers(which, images.shape[1:], torch.randn), norm)
        delta = towards * rng.numbers(which, (1, 1, 1)) ** (1 / images[0].numel())
    return projected(images + eps * delta.to(images.dtype), images, eps, norm, band)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The largest other logit minus the label's, (N,): positive where the image is fooled."""
    own = logits.gather(1, labels[:, None]).squeeze(1)
    return logits.scatter(1, labels[:, None], -math.inf).max(dim=1).values - own


_LOSSES: dict[Loss, Objective] = {"cross_entropy": partial(F.cross_entropy, reduction="none"), "margin": margin}
