"""Scoring attacks: which images stay correctly classified, which share, and the smallest eps that fools each image.

An attack here is any function (model, images, labels) -> images, such as `pgd` or `functools.partial(pgd, steps=20)`.
One that attacks another model and ignores the first argument measures transfer.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from hfclib.attacks import boundary
from hfclib.attacks.checks import DEFAULT_EPS, check_batch, check_count, forward, number_of
from hfclib.attacks.gradient import pgd
from hfclib.attacks.rng import check_indices, draw_seed
from hfclib.batching import Labels, batches, check_labels
from hfclib.conditions import depends_on_batch, evaluating
from hfclib.devices import device_of

ATTACK_BATCH_SIZE = 512
AttackFunction = Callable[..., Tensor]


def robust_correct(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attacks: AttackFunction | Sequence[AttackFunction],
    *,
    eps: float | None = None,
    indices: Tensor | None = None,
    batch_size: int = ATTACK_BATCH_SIZE,
    stop_early: bool = True,
    amp: bool = False,
) -> Tensor:
    """Which images a model classifies correctly before and after every attack.

    Args:
        model, images, labels: as in `pgd`.
        attacks: one attack or several, tried one after the other on the images that are still correct. None may be
            targeted: `accuracy` of its images and their targets is the share for which such an attack succeeds.
        eps: passed to the attacks that have it, at least one; None for their own.
        indices: (N,) whole numbers from 0, the images' places in the data; None for 0 to N - 1. They are passed to the
            attacks that have the keyword, see `pgd`.
        batch_size: images attacked at once; the result does not depend on it, but for rounding, nor does an image's on
            what becomes of others. An attack of your own has to hand `indices` on to `pgd` for that.
        stop_early, amp: passed to attacks that have such options, see `pgd`. Scores are always in full precision.
    Returns:
        (N,) bool on the device of the images.
    Raises:
        TypeError, ValueError: as `pgd`, a model whose logits depend on the batch, no attack, a targeted one, none that
            takes the eps, or one that returns images of another shape or outside [0, 1].
    """
    options = AttackOptions(eps, indices, batch_size, stop_early, amp)
    return _correct_after_each(model, images, labels, _checked(attacks), options)[-1]


@dataclass(frozen=True)
class AttackOptions:
    """What all attacks on a model are given; see `robust_correct`."""

    eps: float | None = None
    indices: Tensor | None = None
    batch_size: int = ATTACK_BATCH_SIZE
    stop_early: bool = True
    amp: bool = False


def _correct_after_each(
    model: nn.Module, images: Tensor, labels: Tensor, attacks: list[AttackFunction], options: AttackOptions
) -> Tensor:
    """Which images are correct without an attack, and then after each attack, (1 + number of attacks, N) bool."""
    places, eps, batch_size = check_indices(options.indices, len(images)), options.eps, options.batch_size
    given: dict = {"stop_early": options.stop_early, "amp": options.amp}
    if eps is not None:
        given["eps"] = number_of("eps", eps)
    if eps is not None and not any(_accepted(attack, eps=eps) for attack in attacks):
        raise ValueError(f"expected an attack with the keyword eps, got eps = {eps} and none that takes it")
    _refuse_bad_settings(model, images, labels, attacks, given)
    correct, images = clean_correct(model, images, labels, batch_size=batch_size), images.clamp(0, 1)
    labels, after = check_batch(images, labels), [correct.clone()]
    for attack in attacks:
        for block in _blocks(correct, batch_size):
            accepted = _accepted(attack, indices=places[block.cpu()], **given)
            correct[block] = _still_correct(attack, model, images[block], labels[block], **accepted)
        after.append(correct.clone())
    return torch.stack(after)


def _refuse_bad_settings(
    model: nn.Module, images: Tensor, labels: Tensor, attacks: list[AttackFunction], given: dict
) -> None:
    for attack in attacks:
        if _is_of_library(attack):
            attack(model, images[:0], check_labels(labels, images)[:0], **_accepted(attack, **given))


def clean_correct(model: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int = ATTACK_BATCH_SIZE) -> Tensor:
    """Which images a model classifies correctly without an attack; arguments, result and errors as `robust_correct`."""
    if depends_on_batch(model):  # of which an attack shows fewer and fewer images in a batch
        raise ValueError("expected a model whose logits of an image do not depend on the batch that it is in")
    check_count("batch_size", batch_size, 1)
    labels, images = check_batch(images, labels), images.clamp(0, 1)  # rounding, which is let pass, may leave [0, 1]
    correct = torch.ones(len(images), dtype=torch.bool, device=images.device)
    for block in _blocks(correct, batch_size):
        correct[block] = _still_correct(lambda model, images, labels: images, model, images[block], labels[block])
    return correct


def robust_accuracy(
    model: nn.Module,
    images: Tensor | Iterable,
    labels: Labels = None,
    attacks: AttackFunction | Sequence[AttackFunction] = pgd,
    *,
    eps: float | Sequence[float] | None = None,
    **options,
) -> float | list[float]:
    """Share of images that are correct before and after every attack; by default PGD of 10 steps at eps 8 / 255.

    Args:
        model, images, labels: as in `batches`: tensors, or without labels a loader. Batches go to the model's device.
        attacks, options: as in `robust_correct`, but for `indices`; or `strongest()`.
        eps: as in `robust_correct`; several numbers give a list of shares.
    Returns:
        A share in [0, 1], or a list of them; `robust_table` says what each attack has contributed.
    Raises:
        TypeError, ValueError: as `robust_correct` and `batches`.
    """
    after = _after_each_eps(model, images, labels, _checked(attacks), eps, options)
    shares = [int(correct[-1].sum()) / len(correct[-1]) for correct in after]
    return shares if _several(eps) else shares[0]


def robust_table(
    model: nn.Module,
    images: Tensor | Iterable,
    labels: Labels = None,
    attacks: AttackFunction | Sequence[AttackFunction] = pgd,
    *,
    eps: float | Sequence[float] | None = None,
    **options,
) -> pd.DataFrame:
    """`robust_accuracy` attack by attack: what each of several, such as those of `strongest()`, has fooled.

    Args:
        model, images, labels, attacks, eps, options: as in `robust_accuracy`.
    Returns:
        One row without an attack, then one per eps and attack, in their order. Columns: attack, its name and settings;
        eps, missing where it is the attack's own and not known; images, the number on which it was run, which are those
        that are correct before it; fooled, the number of these that it fooled; and accuracy, the share of all images
        that is correct after it and all before it at this eps.
    Raises:
        TypeError, ValueError: as `robust_accuracy`.
    """
    attacks = _checked(attacks)
    after = _after_each_eps(model, images, labels, attacks, eps, options)
    count, clean = after[0].shape[1], int(after[0][0].sum())
    rows = [("none", 0.0, count, count - clean, clean / count)]
    for number, correct in zip(_eps_values(eps), after, strict=True):
        left = correct.sum(dim=1).tolist()
        for attack, (tried, still) in zip(attacks, pairwise(left), strict=True):
            own = number if number is not None and _accepted(attack, eps=number) else _own_eps(attack)
            rows.append((_name(attack), own, tried, tried - still, still / count))
    return pd.DataFrame(rows, columns=["attack", "eps", "images", "fooled", "accuracy"])


def _after_each_eps(model, images, labels, attacks: list[AttackFunction], eps, options: dict) -> list[Tensor]:
    """For each eps, `_correct_after_each` of all images of `batches`."""
    eps_values, device, total = _eps_values(eps), device_of(model), 0
    after: list[list[Tensor]] = [[] for _ in eps_values]
    for part, classes in batches(model, images, labels):
        part, classes = part.to(device), classes.to(device)
        for number in eps_values if total == 0 else ():
            if number is not None:  # a bad one is refused before the work on those before it
                _refuse_bad_settings(model, part, classes, attacks, {"eps": number})
        indices = torch.arange(total, total + len(part), device="cpu")
        total += len(part)
        for number, parts in zip(eps_values, after, strict=True):
            own = AttackOptions(eps=number, indices=indices, **options)
            parts.append(_correct_after_each(model, part, classes, attacks, own))
    return [torch.cat(parts, dim=1) for parts in after]


def _several(eps: Any) -> bool:
    return np.ndim(eps) > 0


def _eps_values(eps: Any) -> list[float | None]:
    """One eps or several as numbers; [None] for the attacks' own."""
    if eps is None:
        return [None]
    values: list[float | None] = [number_of("eps", number) for number in (eps if _several(eps) else [eps])]
    if not values:
        raise ValueError("expected eps, one number or several, got an empty list")
    return values


def smallest_eps(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: AttackFunction,
    *,
    highest: float = 0.5,
    rounds: int = 12,
    batch_size: int = ATTACK_BATCH_SIZE,
) -> Tensor:
    """The smallest eps at which an attack fools the model, for each image, by bisection.

    Args:
        model, images, labels, batch_size: as in `robust_correct`.
        attack: takes eps as a keyword, (N,), such as `partial(pgd, steps=20)`; `indices` too where it has that.
        highest: the largest eps tried, finite and above 0, in units of pixels in [0, 1].
        rounds: bisections, 0 or more; the result is exact to highest / 2**rounds.
    Returns:
        (N,) float32 on the device of the images: 0 where the model is wrong without an attack, infinity where it is
        correct even at `highest`; else the smallest eps seen to succeed. Larger ones are assumed to succeed too.
    Raises:
        TypeError, ValueError: as `robust_correct`, or highest or rounds out of range.
    Source: the paper's Table 2 rests on attacks of this kind, the defaults of the library that its code calls.
    """
    labels, images = check_batch(images, labels), images.clamp(0, 1)
    check_count("rounds", rounds, 0)
    if not 0 < highest < math.inf:
        raise ValueError(f"expected highest, finite and above 0, got {highest}")
    (attack,), places = _checked([attack]), torch.arange(len(images), device="cpu")
    for eps in (highest, torch.full((0,), highest, device=images.device)):  # the second as one per image
        _refuse_bad_settings(model, images, labels, [attack], {"eps": eps})
    correct = clean_correct(model, images, labels, batch_size=batch_size)
    low = torch.zeros(len(images), dtype=torch.float32, device=images.device)
    high = torch.where(correct, math.inf, low)
    for number in range(rounds + 1):
        tried = (low + high) / 2 if number else torch.full_like(low, highest)
        for block in _blocks(correct & tried.isfinite(), batch_size):  # not where `highest` did not succeed
            eps, options = tried[block], _accepted(attack, stop_early=True, indices=places[block.cpu()])
            robust = _still_correct(attack, model, images[block], labels[block], eps=eps, **options)
            low[block[robust]], high[block[~robust]] = eps[robust], eps[~robust]
    return high


def _blocks(chosen: Tensor, batch_size: int) -> Iterator[Tensor]:
    """The indices of the `chosen` (N,) bool, in batches."""
    return (block for block in chosen.nonzero().squeeze(1).split(batch_size) if len(block))


def _checked(attacks: AttackFunction | Iterable[AttackFunction]) -> list[AttackFunction]:
    """The attacks as a list; one that takes a seed and has none gets one, which is then the same for all images."""
    several: list[Any] = [attacks]  # also if it is none, which is told below
    if isinstance(attacks, Iterable) and not isinstance(attacks, str) and not callable(attacks):
        several = list(attacks)
    if not several:
        raise ValueError("expected at least one attack, got none: hfclib.accuracy measures without")
    for place, attack in enumerate(several):
        if not callable(attack):
            raise TypeError(f"expected attacks, functions such as hfclib.pgd, got {attack!r}")
        settings = _settings(attack)
        if settings.get("targeted"):
            advice = "take hfclib.accuracy of a targeted attack's images and of its targets"
            raise ValueError(f"expected attacks that are not targeted, got targeted = True: {advice}")
        if settings.get("seed", 0) is None:
            several[place] = partial(attack, seed=draw_seed())
    return several


def _own_eps(attack: AttackFunction) -> float:
    """The eps that an attack takes if it is given none; NaN if it does not say."""
    settings = _settings(attack)
    if settings.get("eps", 0) is None and _is_of_library(attack):
        return DEFAULT_EPS
    eps = settings.get("eps")
    return float(eps) if isinstance(eps, Real) else math.nan


def _name(attack: AttackFunction) -> str:
    """An attack's name, with what `functools.partial` has set of it where that is short, and another package's name."""
    function = _function(attack)
    name = getattr(function, "__name__", type(function).__name__)
    given = attack.keywords if isinstance(attack, partial) else {}
    shown = {key: f"{value:.4g}" if isinstance(value, float) else f"{value}" for key, value in given.items()}
    short = [f"{key}={text}" for key, text in shown.items() if key not in ("eps", "seed") and len(text) <= 30]
    origin = f" of {boundary.PACKAGE} {version(boundary.PACKAGE)}" if function is boundary.fab else ""
    return (f"{name}({', '.join(short)})" if short else name) + origin


def _is_of_library(attack: AttackFunction) -> bool:
    return str(getattr(_function(attack), "__module__", "")).startswith("hfclib.attacks.")


def _function(attack: AttackFunction) -> AttackFunction:
    """The attack without what `functools.partial` has set."""
    return attack.func if isinstance(attack, partial) else attack


def _settings(attack: AttackFunction) -> dict:
    """The default of each keyword of an attack, and what `functools.partial` has set."""
    known = inspect.signature(attack).parameters.values()
    defaults = {keyword.name: keyword.default for keyword in known if keyword.default is not keyword.empty}
    return defaults | (attack.keywords if isinstance(attack, partial) else {})


def _accepted(attack: AttackFunction, **options) -> dict:
    """Those of the options that the attack has."""
    known = inspect.signature(attack).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    return {name: value for name, value in options.items() if takes_all or name in known}


def _still_correct(attack: AttackFunction, model: nn.Module, images: Tensor, labels: Tensor, **options) -> Tensor:
    with evaluating(model):  # for an attack of one's own, which may leave it in training mode
        adv_images = attack(model, images, labels, **options)
    if adv_images.shape != images.shape:
        raise ValueError(f"expected images {tuple(images.shape)} from the attack, got {tuple(adv_images.shape)}")
    if not (adv_images.min() >= 0 and adv_images.max() <= 1):  # NaN too
        raise ValueError("expected images in [0, 1] from the attack, got values outside")
    with torch.no_grad(), evaluating(model):
        return forward(model, adv_images, labels).argmax(dim=1) == labels
