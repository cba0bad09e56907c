"""Defenses of a trained network that change nothing but its kernels, input or logits, and the attacks they are put to.

An attack is named by a method; `after` says which others an image must have withstood before it. "fgsm" and "pgd" are
those of the paper's Table 2, run through the defense. "unaware" is PGD on the network without its defense, whose images
the defense then gets: what an attacker does who doesn't know of it. The other four are the judgement, each put to those
images that all before it left right: "restarts" (PGD through the defense, several random starts), "margin" (the same
on the margin of the logits, which saturation can't flatten), "transfer" (the same on the network without its defense),
and "square" (no gradient at all).
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from hfclib.attacks.gradient import fgsm, pgd
from hfclib.attacks.random_search import square
from hfclib.attacks.robustness import AttackFunction
from hfclib.frequency import LowPass
from hfclib.kernels import filter_kernels, smooth_kernels
from hfclib.paper.presets import Preset, adversarial_recipes, fig4_recipes
from hfclib.training.recipe import Recipe

PENALTY = 10.0  # weight of the penalty on rough kernels


def defense_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """The networks that are attacked: vanilla, penalised (vanilla with a penalty on rough kernels in training), and
    adversarial without and with BatchNorm.

    Source: paper, section 6.2 and Table 2; the penalty, whose weight is ours, from the authors' blog post.
    """
    vanilla = fig4_recipes(preset)["vanilla"]
    penalised = replace(vanilla, name=vanilla.name.replace("vanilla", "penalised"), smoothness_penalty=PENALTY)
    return {"vanilla": vanilla, "penalised": penalised, **adversarial_recipes(preset)}


DefenseMethod = Literal["none", "rule", "normalised", "kernels", "input", "scale"]
AttackMethod = Literal["clean", "fgsm", "pgd", "unaware", "restarts", "margin", "transfer", "square"]
RESTARTS = 5
LONGER = 2  # times as many steps as the table's PGD takes the judgement's, each as long
QUERIES = 50  # times as many queries has "square"
RHO = (0.1, 0.5, 1.0)
KERNEL_RADII = (4, 8, 12)
INPUT_RADII = (4, 8, 12, 16)


class Defense(NamedTuple):
    """What is done to a trained network, by a method and a strength.

    The method is "none"; "rule", the paper's equation 3 as printed, or "normalised", divided by its gain
    (`smooth_kernels`); "kernels", the HFC taken out of the first layer's kernels
    (`filter_kernels`); "input", the HFC taken out of the input; "scale", the logits times the gain of
    "rule", a control that changes no answer. The strength is rho of "rule", "normalised" and "scale", the radius of
    "kernels" and "input"; 0 with "none".
    """

    method: DefenseMethod
    strength: float = 0.0


class Attack(NamedTuple):
    """What a network is put to: a method (see the module's text; "clean" is none), a size and a number of steps.

    eps is the radius of the Linf ball, in units of pixels in [0, 1], 0 with "clean"; steps are those of "pgd", 1 with
    "fgsm" and 0 with "clean". The attacks of the judgement are longer by fixed factors.
    """

    method: AttackMethod
    eps: float = 0.0
    steps: int = 0


NONE, CLEAN = Defense("none"), Attack("clean")


class Scaled(nn.Module):
    """A network whose logits are multiplied by `gain`."""

    def __init__(self, model: nn.Module, gain: float) -> None:
        super().__init__()
        self.model, self.gain = model, gain

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W)."""
        return self.gain * self.model(images)


def defended(model: nn.Module, defense: Defense) -> nn.Module:
    """A network under a defense, in evaluation mode: a copy, so that the model given stays as it is.

    Raises:
        TypeError, ValueError: another method, or a strength that its smoothing or filter refuses.
    """
    method, strength = defense
    changes = {
        "none": lambda: copy.deepcopy(model),
        "rule": lambda: smooth_kernels(model, strength),
        "normalised": lambda: smooth_kernels(model, strength, normalise=True),
        "kernels": lambda: filter_kernels(model, strength),
        "input": lambda: nn.Sequential(LowPass(strength), copy.deepcopy(model)),
        "scale": lambda: Scaled(copy.deepcopy(model), 1 + 8 * strength),
    }
    if method not in changes:
        raise ValueError(f"expected method of a defense, one of {', '.join(changes)}, got {method!r}")
    return changes[method]().eval()


def all_defenses(rho: Sequence[float] = RHO) -> list[Defense]:
    """The rows of the table: none, and each defense at its strengths."""
    by_rho = [Defense(method, one) for method in ("rule", "normalised", "scale") for one in rho]
    kernels = [Defense("kernels", float(radius)) for radius in KERNEL_RADII]
    return [NONE, *by_rho, *kernels, *(Defense("input", float(radius)) for radius in INPUT_RADII)]


def table_attacks(defense: Defense, eps: Sequence[float], steps: int) -> list[Attack]:
    """The columns of the table for a defense: clean, and at each eps the attacks under which a gain may appear."""
    claimed = ("pgd", "unaware") if defense.method == "input" else ("pgd",)
    found = [CLEAN]
    for one in eps:
        found += [Attack("fgsm", one, 1), *(Attack(method, one, steps) for method in claimed)]
    return found


def long_attacks(eps: float, steps: int) -> list[Attack]:
    """The attacks of the judgement at one eps; what withstands the last withstands all."""
    return [Attack(method, eps, steps) for method in ("restarts", "margin", "transfer", "square")]


def attacks_before(defense: Defense, attack: Attack) -> list[Attack]:
    """Which attacks an image must have withstood before this one is put to it, so that a later one is never weaker."""
    if attack.method == "clean":
        return []
    if attack.method == "restarts":
        return table_attacks(defense, [attack.eps], attack.steps)
    order = [one.method for one in long_attacks(attack.eps, attack.steps)]
    if attack.method not in order:
        return [CLEAN]
    return [attack._replace(method=order[order.index(attack.method) - 1])]


def attack_function(attack: Attack, undefended: nn.Module) -> AttackFunction:
    """The attack as `robust_correct` takes it, with random numbers of its own from seed 0.

    Args:
        attack: any but "clean".
        undefended: the network without its defense, which "unaware" and "transfer" attack in its place.
    Raises:
        ValueError: another method.
    """
    method, eps, steps = attack
    generator = torch.Generator().manual_seed(0)
    single = partial(pgd, eps=eps, alpha=2.5 * eps / max(steps, 1), steps=steps, generator=generator)
    longer = partial(single, steps=LONGER * steps, restarts=RESTARTS)
    attacks = {
        "fgsm": partial(fgsm, eps=eps),
        "pgd": single,
        "unaware": partial(_elsewhere, attack=single, undefended=undefended),
        "restarts": longer,
        "margin": partial(longer, loss="margin"),
        "transfer": partial(_elsewhere, attack=partial(longer, loss="margin"), undefended=undefended),
        "square": partial(square, eps=eps, queries=max(QUERIES * steps, 1), generator=generator),
    }
    if method not in attacks:
        raise ValueError(f"expected method of an attack, one of {', '.join(attacks)}, got {method!r}")
    return attacks[method]


def _elsewhere(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    attack: AttackFunction,
    undefended: nn.Module,
    amp: bool = False,
) -> Tensor:
    """An attack on another network than the one asked; it never stops early, since it can't see that one's answers."""
    return attack(undefended, images, labels, amp=amp)
