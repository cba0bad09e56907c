"""Defenses of a trained network, and the attacks with which they are evaluated.

A defense changes only the first layer's kernels, the input or the logits. Trials are stored under an attack's method:

- "fgsm" and "pgd" are the attacks of the paper's Table 2. They are adaptive: their gradient goes through the defense.
- "unaware" is the non-adaptive attack: PGD on the network without its defense, whose images the defense then gets.
- "restarts", "margin", "transfer" and "square" together are the strong attack. Each is run on the images that all
  attacks before it left correct: PGD through the defense from several random starts; the same on the margin of the
  logits, whose gradient does not saturate; both on the network without its defense; and a search without gradients.
- AUTOATTACK are the four components of AutoAttack (Croce and Hein, ICML 2020) in the code of torchattacks, each run on
  what those before it left correct: a check of the strong attack that shares no code with it.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from hfclib.attacks.boundary import fab
from hfclib.attacks.gradient import fgsm, pgd, projected
from hfclib.attacks.random_search import square
from hfclib.attacks.robustness import AttackFunction
from hfclib.frequency import LowPass
from hfclib.kernels import filter_kernels, smooth_kernels
from hfclib.paper.presets import Preset, adversarial_recipes, fig4_recipes
from hfclib.training.recipe import Recipe

DefenseMethod = Literal["none", "rule", "normalised", "kernels", "input", "scale"]
AttackMethod = (
    Literal["clean", "fgsm", "pgd", "unaware", "restarts", "margin", "transfer", "square"]
    | Literal["apgd-ce", "apgd-t", "fab-t", "square-5000"]
)
STRONG_CHAIN: tuple[AttackMethod, ...] = ("restarts", "margin", "transfer", "square")
AUTOATTACK: tuple[AttackMethod, ...] = ("apgd-ce", "apgd-t", "fab-t", "square-5000")
AUTOATTACK_STEPS = 100  # as published, of each but the last, which has 5,000 queries; torchattacks' default is 10
STRONGEST = STRONG_CHAIN[-1]  # images that are correct after it were correct after the whole chain
RESTARTS = 5
LONGER = 2  # the strong attack's PGD takes this many times the steps of the table's PGD
QUERIES = 50  # queries of "square" per step of the table's PGD
PENALTY = 10.0  # weight of the penalty on rough kernels
RHO = (0.1, 0.5, 1.0)
KERNEL_RADII = (4, 8, 12)
INPUT_RADII = (4, 8, 12, 16)


def defense_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """The attacked networks: vanilla, penalised (trained with a penalty on rough kernels), and adversarially trained
    ones without and with BatchNorm.

    Source: paper, section 6.2 and Table 2; the penalty, whose weight is ours, from the authors' blog post.
    """
    vanilla = fig4_recipes(preset)["vanilla"]
    penalised = vanilla.with_(name=vanilla.name.replace("vanilla", "penalised"), smoothness_penalty=PENALTY)
    return {"vanilla": vanilla, "penalised": penalised, **adversarial_recipes(preset)}


class Defense(NamedTuple):
    """A change of a trained network.

    Args:
        method: "none"; "rule", the paper's equation 3 as printed; "normalised", the same divided by its gain;
            "kernels", the first layer's kernels without their HFC; "input", images without their HFC; "scale", the
            logits times the gain of "rule", a control that changes no prediction.
        strength: rho of "rule", "normalised" and "scale"; the radius of "kernels" and "input"; 0 of "none".
    """

    method: DefenseMethod
    strength: float = 0.0


class Attack(NamedTuple):
    """An attack.

    Args:
        method: as in the module's text; "clean" is no attack.
        eps: radius of the Linf ball in units of pixels in [0, 1]; 0 of "clean".
        steps: of the table's PGD, also for the longer attacks; 1 of "fgsm", 0 of "clean".
    """

    method: AttackMethod
    eps: float = 0.0
    steps: int = 0


NONE, CLEAN = Defense("none"), Attack("clean")


def _scaled(model: nn.Module, gain: float) -> nn.Module:
    scaled = copy.deepcopy(model)
    scaled.register_forward_hook(lambda module, images, logits: gain * logits)
    return scaled


def defended(model: nn.Module, defense: Defense) -> nn.Module:
    """A copy of the network with a defense, in evaluation mode.

    Raises:
        TypeError, ValueError: an unknown method, or a strength that the method refuses.
    """
    method, strength = defense
    changes = {
        "none": lambda: copy.deepcopy(model),
        "rule": lambda: smooth_kernels(model, strength),
        "normalised": lambda: smooth_kernels(model, strength, normalise=True),
        "kernels": lambda: filter_kernels(model, strength),
        "input": lambda: nn.Sequential(LowPass(strength), copy.deepcopy(model)),
        "scale": lambda: _scaled(model, 1 + 8 * strength),
    }
    if method not in changes:
        raise ValueError(f"expected method of a defense, one of {', '.join(changes)}, got {method!r}")
    return changes[method]().eval()


def all_defenses(rho: Sequence[float] = RHO) -> list[Defense]:
    """The rows of the table: no defense, then each defense at its strengths."""
    by_rho = [Defense(method, one) for method in ("rule", "normalised", "scale") for one in rho]
    kernels = [Defense("kernels", float(radius)) for radius in KERNEL_RADII]
    return [NONE, *by_rho, *kernels, *(Defense("input", float(radius)) for radius in INPUT_RADII)]


def table_attacks(defense: Defense, eps: Sequence[float], steps: int) -> list[Attack]:
    """The columns of the table for a defense: clean images, and at each eps the attacks under which it may gain."""
    methods = ("pgd", "unaware") if defense.method == "input" else ("pgd",)
    attacks = [CLEAN]
    for size in eps:
        attacks += [Attack("fgsm", size, 1), *(Attack(method, size, steps) for method in methods)]
    return attacks


def long_attacks(eps: float, steps: int) -> list[Attack]:
    """The parts of the strong attack at one eps, in their order."""
    return [Attack(method, eps, steps) for method in STRONG_CHAIN]


def autoattack(eps: float) -> list[Attack]:
    """The components of AutoAttack at one eps, in their order."""
    return [Attack(method, eps, AUTOATTACK_STEPS) for method in AUTOATTACK]


def attacks_before(defense: Defense, attack: Attack) -> list[Attack]:
    """The attacks after which an image must be correct for this one to be run on it."""
    for chain in (STRONG_CHAIN, AUTOATTACK):
        if attack.method in chain[1:]:
            return [attack._replace(method=chain[chain.index(attack.method) - 1])]
    if attack.method == STRONG_CHAIN[0]:
        return table_attacks(defense, [attack.eps], attack.steps)
    return [] if attack == CLEAN else [CLEAN]


def attack_functions(attack: Attack, undefended: nn.Module) -> list[AttackFunction]:
    """The attack as `robust_correct` takes it, with seed 0; "transfer" has two parts, of which the second has seed 1.

    Args:
        attack: any but "clean".
        undefended: the network without its defense, which "unaware" and "transfer" attack.
    Raises:
        ValueError: an unknown method.
    """
    method, eps, steps = attack
    single = partial(pgd, eps=eps, alpha=2.5 * eps / max(steps, 1), steps=steps, seed=0)
    longer = partial(single, steps=LONGER * steps, restarts=RESTARTS)
    margin = partial(longer, loss="margin")
    attacks = {
        "fgsm": [partial(fgsm, eps=eps)],
        "pgd": [single],
        "unaware": [partial(_transferred, attack=single, target=undefended)],
        "restarts": [longer],
        "margin": [margin],
        "transfer": [partial(_transferred, attack=one, target=undefended) for one in (margin, partial(longer, seed=1))],
        "square": [partial(square, eps=eps, queries=max(QUERIES * steps, 1), seed=0)],
        "fab-t": [partial(fab, eps=eps, steps=steps)],
    }
    attacks |= {
        name: [partial(_by_torchattacks, name=name, eps=eps, steps=steps)] for name in AUTOATTACK if name != "fab-t"
    }
    if method not in attacks:
        raise ValueError(f"expected method of an attack, one of {', '.join(attacks)}, got {method!r}")
    return attacks[method]


def _transferred(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    attack: AttackFunction,
    target: nn.Module,
    indices: Tensor | None = None,
    amp: bool = False,
) -> Tensor:
    """An attack on `target` in place of `model`. It takes no `stop_early`: it can't see when `model` is fooled."""
    return attack(target, images, labels, indices=indices, amp=amp)


def _by_torchattacks(
    model: nn.Module, images: Tensor, labels: Tensor, *, name: AttackMethod, eps: float, steps: int
) -> Tensor:
    """A component of AutoAttack as torchattacks has it, with seed 0, in full precision; FAB is `hfclib.attacks.fab`."""
    import torchattacks  # not a dependency: what is stored needs none

    made: dict[AttackMethod, Callable[..., torchattacks.attack.Attack]] = {
        "apgd-ce": partial(torchattacks.APGD, loss="ce", steps=steps),
        "apgd-t": partial(torchattacks.APGDT, steps=steps, n_classes=10),
        "square-5000": partial(torchattacks.Square, n_queries=5_000),
    }
    with torch.random.fork_rng():  # torchattacks seeds PyTorch's generators
        moved = made[name](model, norm="Linf", eps=eps, seed=0)(images, labels).detach()
    return projected(moved, images, eps, "linf")  # it rounds its box and ball
