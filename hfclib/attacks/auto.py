"""APGD, which sets its own step length, and the strongest attack of the library: APGD in two forms, then Square."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hfclib.attacks import boundary, checks
from hfclib.attacks.checks import DEFAULT_EPS
from hfclib.attacks.gradient import (
    AttackNorm,
    Band,
    PerImageState,
    direction,
    gradients,
    projected,
    start,
)
from hfclib.attacks.random_search import square
from hfclib.attacks.rng import PerImageRNG
from hfclib.conditions import evaluating

TARGETS = 9  # classes that `strongest` aims at
_MOMENTUM, _RISES = 0.75, 0.75  # published: the share of a new step, and of rising steps up to which steps are halved
_FIRST, _SHORTER, _SHORTEST = 0.22, 0.03, 0.06  # published: shares of the steps, of which `_checkpoints` are made


def apgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float | Tensor | None = None,
    steps: int = 100,
    targets: int = 0,
    norm: AttackNorm = "linf",
    band: Band = None,
    seed: int | None = None,
    indices: Tensor | None = None,
    amp: bool = False,
) -> Tensor:
    """PGD with momentum whose steps are halved, and go on from the best point, where the loss has stopped to rise.

    With the cross-entropy (`targets` 0) each step from the same start is that of AutoAttack's code, but for the first
    checkpoint, where that counts the first step as a rise. The start is drawn uniformly from the ball, as in `pgd`.

    Args:
        model, images, labels, eps, norm, band, seed, indices, amp: as in `pgd`. An image is left alone once it is
            fooled.
        steps: number of steps from each start, 1 or more.
        targets: 0 raises the cross-entropy; a number k aims at each of the k likeliest wrong classes in turn, whose
            logit it raises above the label's.
    Returns:
        adv_images like images: in [0, 1], within eps of images up to rounding (1e-6); raises and warns as `pgd`.
    Source: Croce and Hein, ICML 2020; but with targets the difference of logits is not divided by their spread.
    """
    labels, eps = checks.check_batch(images, labels), checks.per_image("eps", checks.eps_of(eps, norm), images, norm)
    checks.check_count("steps", steps, 1)
    checks.check_count("targets", targets, 0)
    rng, aims = PerImageRNG(len(images), seed, indices), [None]
    with torch.inference_mode(False), torch.enable_grad(), evaluating(model):
        images, labels, eps = (tensor.detach().clone() for tensor in (images, labels, eps))
        adv_images, left = images.clone(), torch.arange(len(images), device=images.device)
        if targets and len(images):
            scores = checks.forward(model, images, labels).detach().scatter(1, labels[:, None], -torch.inf)
            aims = scores.topk(min(targets, scores.shape[1] - 1)).indices.unbind(1)
        for aim in aims:
            if len(left):
                points = start(images[left], eps[left], norm, rng, left, band)
                state = _ApgdState(
                    left, images[left], labels[left], eps[left], points, aim if aim is None else aim[left]
                )
                _apgd_steps(model, state, steps, adv_images, norm=norm, band=band, amp=amp)
                left = state.place
    return adv_images


@dataclass
class _ApgdState(PerImageState):
    aim: Tensor | None  # (N,) the class whose logit is raised; None raises the cross-entropy
    step: Tensor = field(init=False)  # (N, 1, 1, 1) length of the next step
    previous: Tensor = field(init=False)  # the point before `points`
    slope: Tensor = field(init=False)  # the gradient at `points`
    value: Tensor = field(init=False)  # (N,) the objective at `points`
    rises: Tensor = field(init=False)  # (N,) steps since the last checkpoint that have raised the objective
    best: Tensor = field(init=False)  # the point of the highest objective so far
    best_slope: Tensor = field(init=False)
    best_value: Tensor = field(init=False)
    best_at_checkpoint: Tensor = field(init=False)  # (N,) `best_value` at the last checkpoint
    halved: Tensor = field(init=False)  # (N,) bool, whether the step was halved there

    def __post_init__(self) -> None:
        self.step = 2 * self.eps
        self.previous = self.slope = self.best = self.best_slope = self.points
        self.value = self.best_value = self.best_at_checkpoint = self.eps.new_full(self.labels.shape, -torch.inf)
        self.rises = torch.full_like(self.labels, -1)  # the first value is no rise
        self.halved = torch.zeros_like(self.labels, dtype=torch.bool)

    def objective(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What the attack raises, (N,)."""
        if self.aim is None:
            return F.cross_entropy(logits, labels, reduction="none")
        return (logits.gather(1, self.aim[:, None]) - logits.gather(1, labels[:, None])).squeeze(1)


def _apgd_steps(
    model: nn.Module, state: _ApgdState, steps: int, adv_images: Tensor, *, norm: AttackNorm, band: Band, amp: bool
) -> None:
    """APGD from `state.points`, into `adv_images` at `state.place`; the images that are not fooled stay in `state`."""
    ends, last = _checkpoints(steps), 0
    for number in range(steps + 1):
        if number:
            share = _MOMENTUM if number > 1 else 1
            moved = state.points + state.step * direction(state.slope, norm)
            moved = projected(moved, state.images, state.eps, norm, band)
            moved = state.points + share * (moved - state.points) + (1 - share) * (state.points - state.previous)
            state.previous, state.points = state.points, projected(moved, state.images, state.eps, norm, band)
        logits, value, slope = gradients(model, state.points, state.labels, state.objective, amp=amp)
        wrong = checks.is_fooled(logits, state.labels)
        if number == 0:
            checks.warn_of_masking(logits, slope, wrong)
        state.slope = band(slope) if band else slope
        state.rises, state.value = state.rises + (value > state.value), value
        better = value > state.best_value
        state.best_value = value.where(better, state.best_value)
        state.best = _where(better, state.points, state.best)
        state.best_slope = _where(better, state.slope, state.best_slope)
        if wrong.any():
            wrong = checks.confirm_in_fp32(model, state.points, state.labels, wrong, amp=amp)
            adv_images[state.place[wrong]] = state.points[wrong]
            state.keep(~wrong)
            if len(state.place) == 0:
                break
        if number in ends:
            too_few = state.rises <= _RISES * (number - last)
            stuck = too_few | (~state.halved & (state.best_value == state.best_at_checkpoint))
            state.step = _where(stuck, state.step / 2, state.step)
            # Back at the best point, momentum still leads away from the point that was left, as in AutoAttack's code.
            state.points = _where(stuck, state.best, state.points)
            state.slope = _where(stuck, state.best_slope, state.slope)
            state.halved, state.best_at_checkpoint = stuck, state.best_value
            state.rises, last = torch.zeros_like(state.rises), number
    adv_images[state.place] = state.best


def _checkpoints(steps: int) -> set[int]:
    """The numbers of steps after which their length is judged; the stretches between them get shorter."""
    first, shorter, shortest = (max(int(share * steps), 1) for share in (_FIRST, _SHORTER, _SHORTEST))
    ends, stretch = [first], first
    while ends[-1] < steps:
        stretch = max(stretch - shorter, shortest)
        ends.append(ends[-1] + stretch)
    return {end for end in ends if end <= steps}


def _where(chosen: Tensor, these: Tensor, others: Tensor) -> Tensor:
    return these.where(chosen.view(-1, 1, 1, 1), others)


def strongest(
    eps: float = DEFAULT_EPS,
    *,
    steps: int = 100,
    queries: int = 5_000,
    fab: bool = False,
    seed: int | None = None,
) -> list[Callable[..., Tensor]]:
    """The attacks (Linf) that `robust_accuracy` takes for a number to publish: APGD, APGD with targets, Square.

    They are those of AutoAttack, as long as there, but for FAB, an option since it needs the package torchattacks;
    `python -m benchmarks.autoattack` compares the two without it.

    Args:
        eps: as in `pgd`, one number; several go to `robust_accuracy`.
        steps: of APGD, from each start, and of FAB.
        queries: of `square`.
        fab: try `hfclib.attacks.fab` too, before Square. It takes as long as APGD with targets.
        seed: as in `pgd`; APGD, APGD with targets and Square take this one and the next two.
    Returns:
        Three attacks, or four, in the order in which they are to be tried. `robust_table` has one row for each.
    Source: Croce and Hein, ICML 2020.
    """
    first, second, third = (None,) * 3 if seed is None else range(seed, seed + 3)
    climb = partial(apgd, eps=eps, steps=steps)
    attacks = [partial(climb, seed=first), partial(climb, targets=TARGETS, seed=second)]
    if fab:
        attacks.append(partial(boundary.fab, eps=eps, steps=steps, targets=TARGETS))
    return [*attacks, partial(square, eps=eps, queries=queries, seed=third)]
