"""Adversarial training: the images that a step trains on, and the robustness recorded on the way."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hfclib.attacks.gradient import pgd, projected
from hfclib.attacks.robustness import robust_accuracy
from hfclib.devices import autocast, device_of
from hfclib.training.recipe import Recipe

EPOCH_STEPS = 10  # of the PGD after each epoch, at the recipe's own eps, in steps of a quarter of it
FINAL_STEPS, FINAL_EPS, FINAL_ALPHA, FINAL_IMAGES = 20, 8 / 255, 2 / 255, 1_000  # of the PGD after training


def adversarial_images(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    generator: torch.Generator,
) -> Tensor:
    """The images of a training step, attacked as the recipe says; each attack step costs a forward and backward pass.

    The network stays in training mode, as in Wong et al.'s code: BatchNorm normalises by the batch, and dropout is on.
    BatchNorm's running averages therefore also include the attack's passes.

    Args:
        model: in training mode.
        images: (N, C, H, W) float32 in [0, 1], channels_last or not.
        labels: (N,) int64.
        recipe: says which attack (`adversarial` and what belongs to it); "none" leaves the images as they are.
        generator: of the random start, on the CPU.
    Returns:
        (N, C, H, W), in [0, 1] and within adv_eps of images, without a gradient.
    Source: Wong et al., ICLR 2020 ("single_step"); Madry et al., ICLR 2018 ("pgd").
    """
    if recipe.adversarial == "none":
        return images
    adv_images, eps = images, recipe.adv_eps
    if recipe.adv_random_start:
        count, channels, height, width = images.shape
        drawn = torch.rand(count, height, width, channels, generator=generator).permute(0, 3, 1, 2)
        adv_images = (images + eps * (2 * drawn.to(images.device) - 1)).clamp(0, 1)
    for _ in range(recipe.adv_steps):
        points = adv_images.detach().requires_grad_()
        with autocast(images.device):
            loss = F.cross_entropy(model(points), labels)
        (gradient,) = torch.autograd.grad(loss, points)
        adv_images = projected(points.detach() + recipe.adv_alpha * gradient.sign(), images, eps, "linf")
    return adv_images


def robust_row(
    model: nn.Module, images: Tensor, labels: Tensor, *, eps: float, alpha: float, steps: int, amp: bool
) -> dict:
    """The accuracy under PGD from one random start, as a row of `CURVE_COLUMNS` with feed "pgd10", for example.

    Args:
        model: in whatever mode; attacked and scored with BatchNorm's running averages.
        images, labels: (N, 3, H, W) float32 in [0, 1], whole test images, and (N,) int64.
        eps, alpha, steps, amp: as `pgd`. The random start is the same at every call.
    """
    device = device_of(model)
    attack = partial(pgd, eps=eps, alpha=alpha, steps=steps, generator=torch.Generator().manual_seed(0))
    measured = robust_accuracy(model, images.to(device), labels.to(device), attack, amp=amp)
    condition = {"split": "test", "band": "x", "radius": -1, "feed": f"pgd{steps}", "bn_stats": "running"}
    return {**condition, "images": len(labels), "accuracy": measured}


def epoch_rows(model: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe) -> list[dict]:
    """The row that adversarial training adds after each epoch, PGD-10 at the recipe's own eps; none for others."""
    if recipe.adversarial == "none":
        return []
    attack = {"eps": recipe.adv_eps, "alpha": recipe.adv_eps / 4, "steps": EPOCH_STEPS}
    return [robust_row(model, images, labels, amp=True, **attack)]


def final_rows(model: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe) -> list[dict]:
    """The row that it adds after training: PGD-20 at 8/255 in steps of 2/255, in float32, on up to 1,000 images."""
    if recipe.adversarial == "none":
        return []
    attack = {"eps": FINAL_EPS, "alpha": FINAL_ALPHA, "steps": FINAL_STEPS}
    return [robust_row(model, images[:FINAL_IMAGES], labels[:FINAL_IMAGES], amp=False, **attack)]


def collapsed(rows: list[dict], own: float) -> bool:
    """Whether training overfits to its own attack: catastrophic overfitting (Wong et al., ICLR 2020).

    That is the case when the accuracy under PGD has fallen below a third of its best, which was at least .2, while the
    accuracy under the training's own attack is above that best. Where both are lost, something else is wrong.

    `rows` are the curves so far; `own` is the accuracy on the last epoch's training images as its attack left them.
    """
    robust = [row["accuracy"] for row in rows if row["feed"] == f"pgd{EPOCH_STEPS}"]
    best = max(robust, default=0)
    return best >= 0.2 and robust[-1] < best / 3 and own > best
