"""Attacks on a network: FGSM and PGD, from images in [0, 1] to images in [0, 1].

An attack returns images; `robustness` scores them. It runs on the images' device, on which the model must be, in
evaluation mode (BatchNorm with its running averages), and leaves the model as it was: modes as before, and no gradient
on any parameter. What is random is drawn for each image from a stream of its own, so that an image's attack does not
depend on the batch it is in.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hfclib.attacks.checks import (
    check_batch,
    check_count,
    forward,
    per_image,
    surely_fooled,
    warn_if_flat,
    warn_if_probabilities,
)
from hfclib.evaluation import evaluating

AttackNorm = Literal["linf", "l2"]
Loss = Literal["cross_entropy", "margin"]
_SHORTEST = 1e-12  # a vector shorter than this has no direction


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The largest other logit minus the label's, (N,): positive where the image is fooled."""
    own = logits.gather(1, labels[:, None]).squeeze(1)
    return logits.scatter(1, labels[:, None], -math.inf).max(dim=1).values - own


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


_LOSSES = {"cross_entropy": _cross_entropy, "margin": margin}


class Draws:
    """Random numbers for each image from a stream of its own.

    Args:
        count: number of images.
        generator: gives each stream its seed, image after image; None takes PyTorch's own.
    """

    def __init__(self, count: int, generator: torch.Generator | None) -> None:
        device = generator.device if generator else "cpu"
        seeds = torch.randint(2**62, (count,), generator=generator, device=device).tolist()
        self.streams = [torch.Generator().manual_seed(seed) for seed in seeds]

    def uniform(self, which: Tensor, shape: Sequence[int]) -> Tensor:
        """Numbers from [0, 1) for the images `which`, each of `shape`, in float32 on the device of `which`."""
        drawn = [torch.rand(*shape, generator=self.streams[index]) for index in which.tolist()]
        return torch.stack(drawn).to(which.device)

    def normal(self, which: Tensor, shape: Sequence[int]) -> Tensor:
        """The same from the standard normal distribution."""
        drawn = [torch.randn(*shape, generator=self.streams[index]) for index in which.tolist()]
        return torch.stack(drawn).to(which.device)


def _length(vectors: Tensor) -> Tensor:
    return vectors.flatten(1).norm(dim=1).clamp_min(_SHORTEST).view(-1, 1, 1, 1)


def projected(moved: Tensor, images: Tensor, eps: Tensor, norm: AttackNorm) -> Tensor:
    """Points back into the ball of eps around images, then into [0, 1], which takes none of them out of the ball again.

    Args:
        moved, images: (N, C, H, W).
        eps: (N, 1, 1, 1).
        norm: "linf" or "l2".
    """
    if norm == "linf":
        return moved.maximum(images - eps).minimum(images + eps).clamp(0, 1)
    delta = moved - images
    return (images + delta * (eps / _length(delta)).clamp(max=1)).clamp(0, 1)


def direction(gradient: Tensor, norm: AttackNorm) -> Tensor:
    """The steepest step of length 1 in `norm` for each gradient, (N, C, H, W); zero where the gradient is zero."""
    if norm == "linf":
        return gradient.sign()
    scaled = gradient / gradient.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-30)  # else its squares underflow
    return scaled / _length(scaled)


def start(images: Tensor, eps: Tensor, norm: AttackNorm, draws: Draws, which: Tensor) -> Tensor:
    """A point drawn uniformly from the ball of eps around each image, then clipped to [0, 1]; `which` as in `Draws`."""
    if norm == "linf":
        delta = 2 * draws.uniform(which, images.shape[1:]) - 1
    else:
        towards = direction(draws.normal(which, images.shape[1:]), norm)
        delta = towards * draws.uniform(which, (1, 1, 1)) ** (1 / images[0].numel())
    return projected(images + eps * delta.to(images.dtype), images, eps, norm)


def _climb(model, images, labels, adv_images, *, eps, alpha, steps, norm, loss, stop_early, amp) -> Tensor:
    adv_images, active = adv_images.clone(), torch.arange(len(images), device=images.device)
    for number in range(steps):
        points = adv_images[active].requires_grad_()
        logits = forward(model, points, labels[active], amp=amp)
        if not logits.requires_grad:
            raise ValueError("expected a model with a gradient from logits to images, got none; `square` needs none")
        (gradient,) = torch.autograd.grad(_LOSSES[loss](logits, labels[active]).sum(), points)
        right = logits.argmax(dim=1) == labels[active]
        if number == 0:
            warn_if_probabilities(logits.detach())
            warn_if_flat(gradient, right)
        if stop_early:
            right = right if not amp else ~surely_fooled(model, points, labels[active], ~right)
            active, points, gradient = active[right], points[right], gradient[right]
            if len(active) == 0:
                break
        moved = points.detach() + alpha[active] * direction(gradient, norm)
        adv_images[active] = projected(moved, images[active], eps[active], norm)
    return adv_images


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float | Tensor,
    alpha: float | Tensor,
    steps: int,
    norm: AttackNorm = "linf",
    random_start: bool = True,
    restarts: int = 1,
    generator: torch.Generator | None = None,
    loss: Loss = "cross_entropy",
    stop_early: bool = False,
    amp: bool = False,
) -> Tensor:
    """Projected gradient ascent on the loss within a ball around each image.

    Args:
        model: any module from (N, C, H, W) in [0, 1] to logits (N, classes), on the images' device.
        images: (N, C, H, W) float32 (or float64) in [0, 1].
        labels: (N,) whole numbers from 0 to classes - 1.
        eps: radius of the ball in units of pixels in [0, 1], 0 or more; one number, or (N,), one an image.
        alpha: length of a step in `norm`, same units, one number or (N,).
        steps: number of steps, 0 or more.
        norm: "linf" or "l2", of the ball and of the step.
        random_start: start at a point drawn uniformly from the ball, then clipped to [0, 1]; else at the image.
        restarts: number of random starts, 1 or more; each image keeps its best result: one that fools the model, if
            there is one, and among equals the one of highest loss.
        generator: of the random starts; None takes PyTorch's own.
        loss: "cross_entropy", or "margin" (the largest other logit minus the label's), which saturation can't flatten.
        stop_early: leave an image as it is from the moment it is fooled, at the start included. The attack then fools
            every image that it fools at any step, where otherwise only the last step counts: never fewer.
        amp: gradients in bfloat16 arithmetic where the device has it. Images stay float32, ball and box exact, and
            whether an image is fooled is always decided in full precision.
    Returns:
        adv_images like images: in [0, 1], within eps of images up to rounding (1e-6).
    Raises:
        TypeError, ValueError: an argument outside what is said above, or a model whose logits are not finite or too
            few for the labels.
    Warns:
        UserWarning: the model seems to return probabilities, or an image that is still right has no gradient at all.
    Source: Madry et al., ICLR 2018.
    """
    labels, eps, alpha = check_batch(images, labels), per_image("eps", eps, images), per_image("alpha", alpha, images)
    check_count("steps", steps, 0)
    check_count("restarts", restarts, 1)
    if norm not in ("linf", "l2") or loss not in _LOSSES:
        raise ValueError(f"expected norm, linf or l2, and loss, cross_entropy or margin, got {norm!r} and {loss!r}")
    if restarts > 1 and not random_start:
        raise ValueError(f"expected restarts = 1 without random_start (all would be the same), got {restarts}")
    draws = Draws(len(images), generator) if random_start else None
    # Callers may stand in no_grad or inference mode, whose tensors take part in no gradient: so we work on copies.
    with torch.inference_mode(False), torch.enable_grad(), evaluating(model):
        images, labels, eps, alpha = (tensor.detach().clone() for tensor in (images, labels, eps, alpha))
        best, which = images.clone(), torch.arange(len(images), device=images.device)
        score = images.new_full((len(images),), -math.inf), torch.zeros_like(labels, dtype=torch.bool)
        for _ in range(restarts):
            if len(which) == 0:
                break
            here, answers, radius = images[which], labels[which], eps[which]
            begin = start(here, radius, norm, draws, which) if draws else here
            adv_images = _climb(
                model,
                here,
                answers,
                begin,
                eps=radius,
                alpha=alpha[which],
                steps=steps,
                norm=norm,
                loss=loss,
                stop_early=stop_early,
                amp=amp,
            )
            if restarts == 1:
                return adv_images
            which = _keep_better(model, adv_images, answers, best, score, which, loss=loss)
            if not stop_early:
                which = torch.arange(len(images), device=images.device)
    return best


def _keep_better(model, adv_images, labels, best, score, which, *, loss) -> Tensor:
    """Put what beats an image's best into `best` and `score`, and return which of the images are still right."""
    losses, fooled = score
    with torch.no_grad():
        logits = forward(model, adv_images, labels)
        found, wrong = _LOSSES[loss](logits, labels).to(losses.dtype), logits.argmax(dim=1) != labels
    better = (wrong & ~fooled[which]) | ((wrong == fooled[which]) & (found > losses[which]))
    place = which[better]
    best[place], losses[place], fooled[place] = adv_images[better], found[better], wrong[better]
    return which[~fooled[which]]


def fgsm(model: nn.Module, images: Tensor, labels: Tensor, *, eps: float | Tensor, amp: bool = False) -> Tensor:
    """One step of length eps along the sign of the gradient, from the image itself; arguments and errors as in `pgd`.

    Source: Goodfellow et al., ICLR 2015.
    """
    return pgd(model, images, labels, eps=eps, alpha=eps, steps=1, random_start=False, amp=amp)
