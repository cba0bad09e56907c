"""hfclib's PGD against Foolbox's and torchattacks': the same network, images and steps, and as good an attack.

Needs both libraries: `make test` installs them. Run: python -m benchmarks.attacks
"""

import argparse
import sys
import warnings
from collections.abc import Callable
from copy import deepcopy
from functools import partial

import numpy as np
import torch
import torchattacks
from torch import Tensor, nn

from benchmarks.measure import PROMISES, Ratio, interleaved, median_ratio, report
from hfclib.attacks.gradient import pgd
from hfclib.data.cifar import embedded, to_float
from hfclib.devices import best_device, device_name, gains_from_bf16
from hfclib.metrics import accuracy
from hfclib.paper.presets import fig4_recipes
from hfclib.runs.store import find

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Foolbox imports a namespace that SciPy 2 will not have
    import foolbox

Way = Callable[[nn.Module, Tensor, Tensor], Tensor]


def foolbox_pgd(model: nn.Module, images: Tensor, labels: Tensor, *, eps: float, alpha: float, steps: int) -> Tensor:
    """Foolbox's Linf PGD from the images themselves."""
    attack = foolbox.attacks.LinfPGD(abs_stepsize=alpha, steps=steps, random_start=False)
    bounded = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)
    return attack(bounded, images, labels, epsilons=eps)[1]


def torchattacks_pgd(
    model: nn.Module, images: Tensor, labels: Tensor, *, eps: float, alpha: float, steps: int
) -> Tensor:
    """torchattacks' PGD from the images themselves."""
    return torchattacks.PGD(model, eps=eps, alpha=alpha, steps=steps, random_start=False)(images, labels)


def in_batches(way: Way, model: nn.Module, images: Tensor, labels: Tensor, batch_size: int) -> Tensor:
    """The adversarial images of one way, batch after batch."""
    batches = zip(images.split(batch_size), labels.split(batch_size), strict=True)
    return torch.cat([way(model, *batch) for batch in batches])


def compare(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    alpha: float,
    steps: int,
    repeats: int,
    batch_size: int,
) -> list[Ratio]:
    """Measure both ratios, and how far apart the robust accuracies are.

    Args:
        model: a network in evaluation mode, on the images' device.
        images, labels: (N, 3, 32, 32) float32 in [0, 1], and (N,).
        eps, alpha: in units of pixels in [0, 1].
        steps: of the attack.
        repeats: timings of each way.
        batch_size: of every way.
    """
    settings = {"eps": eps, "alpha": alpha, "steps": steps}
    # The libraries get the network as their users have it, in NCHW, and hfclib as it loads it.
    plain = deepcopy(model).to(memory_format=torch.contiguous_format)
    ours = deepcopy(model).to(memory_format=torch.channels_last)
    theirs = {"torchattacks": partial(torchattacks_pgd, **settings), "Foolbox": partial(foolbox_pgd, **settings)}
    fast = partial(pgd, **settings, random_start=False, amp=True)
    adv_images: dict[str, Tensor] = {}

    def attacking(name: str, way: Way, network: nn.Module) -> None:
        adv_images[name] = in_batches(way, network, images, labels, batch_size)

    ways = {name: partial(attacking, name, way, plain) for name, way in theirs.items()}
    ways["hfclib"] = partial(attacking, "hfclib", fast, ours)
    ways["hfclib, stopping"] = partial(attacking, "hfclib, stopping", partial(fast, stop_early=True), ours)
    seconds = interleaved(ways, repeats)
    accuracies = {name: accuracy(ours, made, labels) for name, made in adv_images.items()}  # all in float32
    for name, times in seconds.items():
        rate = len(images) / float(np.median(times))
        print(f"{name}: {rate:.0f} images/s (median of {repeats}), robust accuracy {accuracies[name]:.3f}")
    best = min(theirs, key=lambda name: np.median(seconds[name]))
    apart = 100 * (max(accuracies.values()) - min(accuracies.values()))
    return [
        Ratio(PROMISES["pgd"], median_ratio(seconds[best], seconds["hfclib"]), images.device),
        Ratio(PROMISES["pgd_stopping"], median_ratio(seconds[best], seconds["hfclib, stopping"]), images.device),
        Ratio(PROMISES["pgd_accuracy"], apart, images.device),
    ]


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks", description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=500, help="test images of CIFAR-10 (default: 500)")
    parser.add_argument("--batch-size", type=int, default=250, help="images per batch (default: 250)")
    parser.add_argument("--steps", type=int, default=10, help="steps of the attack (default: 10)")
    parser.add_argument("--eps", type=float, default=8, help="in 255ths; a step is a quarter (default: 8)")
    parser.add_argument("--repeats", type=int, default=3, help="timings of each way (default: 3)")
    parser.add_argument("--variant", default="batchnorm", choices=["vanilla", "batchnorm"], help="published network")
    options = parser.parse_args(arguments)
    run, device = find(fig4_recipes("laptop")[options.variant], 0), best_device()
    model = run.model().to(device)
    images, labels = (part[: options.images].to(device) for part in embedded("test"))
    arithmetic = "bfloat16" if gains_from_bf16(device) else "float32"
    print(f"{run.recipe.name} on {device_name(device)}, hfclib in {arithmetic}, torch {torch.__version__}")
    eps = options.eps / 255
    return report(
        compare(
            model,
            to_float(images),
            labels,
            eps=eps,
            alpha=eps / 4,
            steps=options.steps,
            repeats=options.repeats,
            batch_size=options.batch_size,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
