"""APGD, which sets its own step length, and the strongest attack of the library: APGD in two forms, then Square."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hfclib.attacks import checks
from hfclib.attacks.gradient import DEFAULT_EPS, AttackNorm, Band, Draws, direction, gradients, projected, start
from hfclib.attacks.random_search import square
from hfclib.evaluation import evaluating

TARGETS = 9  # classes that `strongest` aims at
_MOMENTUM, _RISES = 0.75, 0.75  # published: the share of a new step, and of rising steps below which steps are halved
_CHECKPOINTS = (22, 41, 57, 70, 80, 87, 93, 99)  # published: percents of the steps after which their length is judged


def apgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float | Tensor = DEFAULT_EPS,
    steps: int = 100,
    targets: int = 0,
    norm: AttackNorm = "linf",
    band: Band = None,
    generator: torch.Generator | None = None,
    amp: bool = False,
) -> Tensor:
    """PGD with momentum whose steps are halved, and go on from the best point, where the loss has stopped to rise.

    Args:
        model, images, labels, eps, norm, band, generator, amp: as in `pgd`. An image is left alone once it is fooled.
        steps: number of steps from each start, 1 or more.
        targets: 0 raises the cross-entropy; a number k aims at each of the k likeliest wrong classes in turn, whose
            logit it raises above the label's.
    Returns:
        adv_images like images: in [0, 1], within eps of images up to rounding (1e-6); raises and warns as `pgd`.
    Source: Croce and Hein, ICML 2020; but with targets the difference of logits is not divided by their spread.
    """
    labels, eps = checks.check_batch(images, labels), checks.per_image("eps", eps, images, norm)
    checks.check_count("steps", steps, 1)
    checks.check_count("targets", targets, 0)
    draws, aims = Draws(len(images), generator), [None]
    with torch.inference_mode(False), torch.enable_grad(), evaluating(model):
        images, labels, eps = (tensor.detach().clone() for tensor in (images, labels, eps))
        adv_images, left = images.clone(), torch.arange(len(images), device=images.device)
        if targets and len(images):
            scores = checks.forward(model, images, labels).detach().scatter(1, labels[:, None], -torch.inf)
            aims = scores.topk(min(targets, scores.shape[1] - 1)).indices.unbind(1)
        for aim in aims:
            if len(left):
                own = SimpleNamespace(images=images[left], labels=labels[left], eps=eps[left], place=left)
                own.aim = own.labels if aim is None else aim[left]
                own.points = start(own.images, own.eps, norm, draws, left, band)
                left = _climb(model, own, steps, adv_images, targeted=bool(targets), norm=norm, band=band, amp=amp)
    return adv_images


def _climb(model, own, steps: int, adv_images: Tensor, *, targeted: bool, norm: str, band: Band, amp: bool) -> Tensor:
    """APGD's steps for the images whose tensors are in `own`, into `adv_images`; the places of those not fooled."""

    def objective(logits: Tensor, labels: Tensor) -> Tensor:
        if not targeted:
            return F.cross_entropy(logits, labels, reduction="none")
        return (logits.gather(1, own.aim[:, None]) - logits.gather(1, labels[:, None])).squeeze(1)

    ends, last = {-(-end * steps // 100) for end in _CHECKPOINTS}, 0
    own.step, own.earlier, own.best, own.best_slope = 2 * own.eps, own.points, own.points, own.points
    own.best_value = own.value = own.value_then = own.images.new_full(own.labels.shape, -torch.inf)
    own.rises = torch.full_like(own.labels, -1)  # the first value is no rise
    own.halved = torch.zeros_like(own.labels, dtype=torch.bool)
    for number in range(steps + 1):
        if number:
            share = _MOMENTUM if number > 1 else 1
            moved = projected(own.points + own.step * direction(own.slope, norm), own.images, own.eps, norm, band)
            moved = own.points + share * (moved - own.points) + (1 - share) * (own.points - own.earlier)
            own.earlier, own.points = own.points, projected(moved, own.images, own.eps, norm, band)
        logits, value, own.slope = gradients(model, own.points, own.labels, objective, amp=amp)
        wrong = checks.is_fooled(logits, own.labels)
        if number == 0:
            checks.warn_of_masking(logits, own.slope, wrong)
        own.slope = band(own.slope) if band else own.slope
        own.rises, own.value = own.rises + (value > own.value), value
        better = value > own.best_value
        own.best_value = value.where(better, own.best_value)
        own.best, own.best_slope = _where(better, own.points, own.best), _where(better, own.slope, own.best_slope)
        if wrong.any():
            wrong = checks.surely_fooled(model, own.points, own.labels, wrong, amp=amp)
            adv_images[own.place[wrong]] = own.points[wrong]
            vars(own).update({name: tensor[~wrong] for name, tensor in vars(own).items()})
            if len(own.place) == 0:
                break
        if number in ends:
            stuck = (own.rises < _RISES * (number - last)) | (~own.halved & (own.best_value == own.value_then))
            own.step, own.value = _where(stuck, own.step / 2, own.step), own.best_value.where(stuck, own.value)
            own.points, own.earlier = _where(stuck, own.best, own.points), _where(stuck, own.best, own.earlier)
            own.slope = _where(stuck, own.best_slope, own.slope)
            own.halved, own.value_then, own.rises, last = stuck, own.best_value, torch.zeros_like(own.rises), number
    adv_images[own.place] = own.best
    return own.place


def _where(chosen: Tensor, these: Tensor, others: Tensor) -> Tensor:
    return these.where(chosen.view(-1, 1, 1, 1), others)


def strongest(
    eps: float = DEFAULT_EPS,
    *,
    steps: int = 100,
    queries: int = 5_000,
    generator: torch.Generator | None = None,
) -> list[Callable[..., Tensor]]:
    """The attacks (Linf) that `robust_accuracy` takes for a number to publish: APGD, APGD with targets, Square.

    They are those of AutoAttack but for FAB, as long as there; `python -m benchmarks.autoattack` compares the two.

    Args:
        eps: as in `pgd`, one number; several go to `robust_accuracy`.
        generator: as in `pgd`.
        steps: of APGD, from each start.
        queries: of `square`.
    Returns:
        Three attacks, in the order in which they are to be tried.
    Source: Croce and Hein, ICML 2020.
    """
    climb = partial(apgd, eps=eps, steps=steps, generator=generator)
    return [climb, partial(climb, targets=TARGETS), partial(square, eps=eps, queries=queries, generator=generator)]
