"""FAB, which looks for the nearest point where the prediction changes; run by the package torchattacks."""

from typing import Any

import torch
from torch import Tensor, nn

from hfclib.attacks import checks
from hfclib.attacks.gradient import AttackNorm, projected
from hfclib.conditions import evaluating

PACKAGE = "torchattacks"  # named beside FAB in `robust_table`
_MISSING = (
    "fab needs the package torchattacks, which asks for an old version of requests and never imports it: "
    "pip install scipy, then pip install --no-deps 'torchattacks>=3.5,<4'"
)


def fab(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float | None = None,
    steps: int = 100,
    targets: int = 9,
    norm: AttackNorm = "linf",
) -> Tensor:
    """Steps to the decision boundary as a linear network would have it, drawn back towards the image each time.

    With the defaults and ten classes it is the third attack of AutoAttack. Its one start is the image itself, so it
    draws no random numbers. It does not raise the loss, and may find what APGD does not.

    Args:
        model, images, labels, norm: as in `pgd`; images of float32.
        eps: as in `pgd`, but one number: images that are not fooled within it are returned as they are.
        steps: number of steps towards each class, 1 or more.
        targets: number k of wrong classes, 1 or more: the k likeliest are tried in turn, or all if there are fewer.
    Returns:
        adv_images like images: in [0, 1], within eps of images up to rounding (1e-6).
    Raises:
        ImportError: torchattacks is not installed.
        TypeError, ValueError: as `pgd`.
    Warns:
        UserWarning: the model seems to return probabilities.
    Source: Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack", ICML 2020,
        in torchattacks' copy of AutoAttack's code.
    """
    try:
        import torchattacks
    except ImportError as error:
        raise ImportError(_MISSING) from error
    labels = checks.check_batch(images, labels)
    if images.dtype != torch.float32:
        raise TypeError(f"expected float32 images, which torchattacks computes in, got {images.dtype}")
    limit = checks.number_of("eps", checks.eps_of(eps, norm))
    radius = checks.per_image("eps", limit, images, norm)
    checks.check_count("steps", steps, 1)
    checks.check_count("targets", targets, 1)
    if len(images) == 0:
        return images.clone()
    # torchattacks seeds PyTorch's generators.
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices), torch.inference_mode(False), torch.no_grad(), evaluating(model):
        # Copies, which need not be of the caller's inference mode, in the layout that torchattacks asks for.
        images, labels, radius = (
            tensor.detach().clone(memory_format=torch.contiguous_format) for tensor in (images, labels, radius)
        )
        logits = checks.forward(model, images, labels)
        checks.warn_if_probabilities(logits)
        tried = min(targets, logits.shape[1] - 1) + 1  # torchattacks counts the label's class too
        options = {"eps": limit, "steps": steps, "n_classes": tried, "multi_targeted": True}
        attack = torchattacks.FAB(_Shown(model, labels), norm="Linf" if norm == "linf" else "L2", **options)
        return projected(attack(images, labels), images, radius, norm)


class _Shown(nn.Module):
    """The model as torchattacks may have it: in full precision, checked, and without gradients for its weights."""

    def __init__(self, model: nn.Module, labels: Tensor) -> None:
        super().__init__()
        self.call = lambda images: checks.forward(model, images, labels)  # its parts are none of this module's
        self.place = nn.Parameter(torch.empty(0, device=labels.device), requires_grad=False)  # shows the device

    def forward(self, images: Tensor) -> Tensor:
        return _ForImages.apply(images, self.call) if torch.is_grad_enabled() else self.call(images)


class _ForImages(torch.autograd.Function):
    """Logits whose way back ends at the images, so that no weight's `grad` is added to."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, call: Any) -> Tensor:
        with torch.enable_grad():
            ctx.images = images.detach().requires_grad_()
            ctx.logits = call(ctx.images)
        return ctx.logits.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return checks.image_gradient(ctx.logits, ctx.images, *gradients), None
