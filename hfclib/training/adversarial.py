"""Adversarial training: the images that a step trains on, and the robustness recorded on the way."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hfclib.attacks.gradient import pgd, projected
from hfclib.attacks.robustness import clean_correct, robust_correct
from hfclib.devices import arithmetic, device_of
from hfclib.training.recipe import Recipe

# The PGD after each epoch, at the recipe's own eps in steps of a quarter of it, and the one after training.
EPOCH_STEPS = 10
FINAL_ATTACK: dict[str, Any] = {"eps": 8 / 255, "alpha": 2 / 255, "steps": 20}
FINAL_IMAGES = 1_000


def adversarial_images(
    model: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe, generator: torch.Generator
) -> Tensor:
    """The images of a training step, attacked as the recipe says; each attack step costs a forward and backward pass.

    The network stays in training mode, as in Wong et al.'s code: BatchNorm normalises by the batch, and dropout is on.
    BatchNorm's running averages therefore also include the attack's passes.

    Args:
        images, labels: (N, C, H, W) float32 in [0, 1], and (N,) int64.
        recipe: says which attack; without one the images stay as they are.
        generator: of the random start, on the CPU.
    Returns:
        (N, C, H, W), in [0, 1] and within its eps of images, without a gradient.
    Source: Wong et al., ICLR 2020 ("single_step"); Madry et al., ICLR 2018 ("pgd").
    """
    attack = recipe.attack
    if attack is None:
        return images
    adv_images, eps = images, attack.eps
    if attack.random_start:
        count, channels, height, width = images.shape
        drawn = torch.rand(count, height, width, channels, generator=generator, device=generator.device)
        adv_images = (images + eps * (2 * drawn.permute(0, 3, 1, 2).to(images.device) - 1)).clamp(0, 1)
    for _ in range(attack.steps):
        points = adv_images.detach().requires_grad_()
        with arithmetic(images.device, amp=True):
            loss = F.cross_entropy(model(points), labels)
        (gradient,) = torch.autograd.grad(loss, points)
        adv_images = projected(points.detach() + attack.alpha * gradient.sign(), images, eps, "linf")
    return adv_images


def robust_rows(
    model: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe, *, after_training: bool = False
) -> list[dict]:
    """What adversarial training adds to the curves or the final table: accuracy under PGD from one random start.

    Args:
        model: in whatever mode; attacked and scored with BatchNorm's running averages.
        images, labels: whole test images (N, 3, H, W) float32 in [0, 1], and (N,) int64.
        recipe: how it was trained; without an attack there is no row.
        after_training: PGD-20 at 8/255 in steps of 2/255, in float32, on up to 1,000 images. Otherwise PGD-10 at the
            recipe's own eps, with bfloat16 where the device gains from it.
    Returns:
        A row of `CURVE_COLUMNS`, with feed "pgd20" or "pgd10". The random start is the same at every call.
    """
    if recipe.attack is None:
        return []
    settings: dict[str, Any] = {"eps": recipe.attack.eps, "alpha": recipe.attack.eps / 4, "steps": EPOCH_STEPS}
    if after_training:
        settings, images, labels = FINAL_ATTACK, images[:FINAL_IMAGES], labels[:FINAL_IMAGES]
    images, labels = (part.to(device_of(model)) for part in (images, labels))
    correct = clean_correct(model, images, labels)
    # Images are numbered among those that are correct, as they were when the published runs were trained.
    some, classes = images[correct], labels[correct]
    attack = partial(pgd, seed=0, **settings)
    correct[correct.clone()] = robust_correct(model, some, classes, attack, amp=not after_training)
    measured = correct.float().mean().item()
    condition = {"split": "test", "band": "x", "radius": -1, "feed": f"pgd{settings['steps']}", "bn_stats": "running"}
    return [{**condition, "images": len(labels), "accuracy": measured}]


def collapsed(rows: list[dict], own: float) -> bool:
    """Whether training overfits to its own attack: catastrophic overfitting (Wong et al., ICLR 2020).

    That is the case when the accuracy under PGD has fallen below a third of its best, which was at least .2, while the
    accuracy under the training's own attack is above that best. Where both are lost, something else is wrong. `rows`
    are the curves so far; `own` is the accuracy on the last epoch's attacked training images.
    """
    robust = [row["accuracy"] for row in rows if row["feed"] == f"pgd{EPOCH_STEPS}"]
    best = max(robust, default=0)
    return best >= 0.2 and robust[-1] < best / 3 and own > best
