"""Scoring attacks: which images a model still gets right, which share, and the smallest perturbation that fools it.

An attack here is any function (model, images, labels) -> images, such as `functools.partial(pgd, eps=8 / 255,
alpha=2 / 255, steps=20)`; one that attacks another model and ignores the first argument measures transfer.
"""

import inspect
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from hfclib.attacks.checks import check_batch, check_count, forward, per_image
from hfclib.evaluation import evaluating

ATTACK_BATCH_SIZE = 512
AttackFunction = Callable[..., Tensor]


def _correct(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad(), evaluating(model):
        return forward(model, images, labels).argmax(dim=1) == labels


def _taken(attack: AttackFunction, **options) -> dict:
    """Those of the options that the attack has."""
    known = inspect.signature(attack).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    return {name: value for name, value in options.items() if takes_all or name in known}


def _attacked(attack: AttackFunction, model: nn.Module, images: Tensor, labels: Tensor, **options) -> Tensor:
    adv_images = attack(model, images, labels, **options)
    if adv_images.shape != images.shape:
        raise ValueError(f"expected images {tuple(images.shape)} from the attack, got {tuple(adv_images.shape)}")
    if not (adv_images.min() >= 0 and adv_images.max() <= 1):
        raise ValueError("expected images in [0, 1] from the attack, got values outside")
    return adv_images


def robust_correct(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attacks: AttackFunction | Sequence[AttackFunction],
    *,
    batch_size: int = ATTACK_BATCH_SIZE,
    stop_early: bool = True,
    amp: bool = False,
) -> Tensor:
    """Which images a model gets right, before and after every attack.

    Args:
        model: any module from (N, C, H, W) in [0, 1] to logits (N, classes), on the images' device.
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) whole numbers from 0 to classes - 1.
        attacks: one attack or several, tried one after the other on the images that are still right.
        batch_size: images attacked at once, 1 or more; no result depends on it, but for rounding.
        stop_early: handed to attacks that have such an option: images already fooled are attacked no further.
        amp: handed to attacks that have such an option: bfloat16 gradients. Scores are always in full precision.
    Returns:
        (N,) bool on the images' device.
    Raises:
        TypeError, ValueError: as `pgd`, or an attack that returns images of another shape or outside [0, 1].
    """
    labels = check_batch(images, labels)
    check_count("batch_size", batch_size, 1)
    right = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    attacks = (attacks,) if callable(attacks) else tuple(attacks)
    for block in torch.arange(len(images), device=images.device).split(batch_size):
        if len(block):  # of no images there is one empty block
            right[block] = _correct(model, images[block], labels[block])
    for attack in attacks:
        # Batches of the right ones, so that an image's place in the attack's random draws hangs on no batch size.
        options = _taken(attack, stop_early=stop_early, amp=amp)
        for block in right.nonzero().squeeze(1).split(batch_size):
            if len(block):
                adv_images = _attacked(attack, model, images[block], labels[block], **options)
                right[block] = _correct(model, adv_images, labels[block])
    return right


def robust_accuracy(
    model: nn.Module, images: Tensor, labels: Tensor, attacks: AttackFunction | Sequence[AttackFunction], **options
) -> float:
    """Share of images in [0, 1] that the model gets right before and after every attack; arguments as `still_right`.

    Raises:
        ValueError: no images, or as `still_right`.
    """
    if len(images) == 0:
        raise ValueError("expected at least one image, got none")
    return robust_correct(model, images, labels, attacks, **options).float().mean().item()


def smallest_eps(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: AttackFunction,
    *,
    highest: float = 0.5,
    rounds: int = 12,
    batch_size: int = ATTACK_BATCH_SIZE,
    amp: bool = False,
) -> Tensor:
    """The smallest eps at which an attack fools the model, image by image, by bisection.

    The search takes for granted that an attack which fools the model at some eps does so at every larger one.

    Args:
        model, images, labels, batch_size, amp: as `still_right`.
        attack: takes eps as a keyword, a tensor of one number an image: `lambda model, images, labels, eps: pgd(model,
            images, labels, eps=eps, alpha=eps / 4, steps=10)`.
        highest: the largest eps tried, finite and above 0, in units of pixels in [0, 1].
        rounds: bisections, 0 or more; the result is exact to highest / 2**rounds.
    Returns:
        (N,) float32 on the images' device: 0 where the model is wrong to begin with, infinity where even `highest`
        does not fool it; else the smallest eps at which the attack was seen to succeed.
    Raises:
        TypeError, ValueError: as `still_right`, or highest or rounds out of range.
    Source: the paper's Table 2 rests on attacks of this kind, the defaults of the library that its code calls.
    """
    labels = check_batch(images, labels)
    check_count("batch_size", batch_size, 1)
    check_count("rounds", rounds, 0)
    if not per_image("highest", highest, images[:1]).all():
        raise ValueError(f"expected highest above 0, got {highest}")
    options = _taken(attack, stop_early=True, amp=amp)
    low, high = torch.zeros(len(images), device=images.device), torch.zeros(len(images), device=images.device)
    right = robust_correct(model, images, labels, (), batch_size=batch_size)
    high[right] = math.inf
    for number in range(rounds + 1):
        tried = (low + high) / 2 if number else torch.full_like(low, highest)
        going = right & tried.isfinite()  # what withstood `highest` is tried no more
        for block in going.nonzero().squeeze(1).split(batch_size):
            if len(block):
                eps, some, answers = tried[block], images[block], labels[block]
                adv_images = _attacked(attack, model, some, answers, eps=eps, **options)
                stands = _correct(model, adv_images, answers)
                low[block[stands]], high[block[~stands]] = eps[stands], eps[~stands]
    return high
