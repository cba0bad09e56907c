"""Whether our attacks overstate robustness: what AutoAttack fools of the images that they do not fool.

Needs torchattacks: `make test` installs it. Run: python -m benchmarks.autoattack
"""

import argparse
import sys

import torch
import torchattacks
from torch import Tensor, nn

from benchmarks.measure import PROMISES, Ratio, report
from hfclib.attacks.auto import strongest
from hfclib.attacks.robustness import clean_correct, robust_correct
from hfclib.data.cifar import embedded, to_float
from hfclib.devices import best_device
from hfclib.paper.defense.setup import NONE, defense_recipes, long_attacks
from hfclib.paper.defense.trials import trials_of
from hfclib.runs.store import find

EPS, STEPS = 8 / 255, 20
VARIANTS = ("adversarial_batchnorm", "adversarial")


class ChannelsLast(nn.Module):
    """The network, given its images in the memory layout in which it is fast."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images.contiguous(memory_format=torch.channels_last))


def fooled_by_autoattack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    batch_size: int = 250,
    seed: int = 0,
    version: str = "standard",
) -> Tensor:
    """Which images torchattacks' AutoAttack fools, scored by us, (N,) bool.

    Args:
        model: in evaluation mode, on the images' device.
        images, labels: (N, C, H, W) float32 in [0, 1], N at least 1, and (N,).
        eps: radius of the Linf ball, in units of pixels in [0, 1].
        batch_size: images attacked at once.
        seed: of all random numbers.
        version: "standard" is the published one: APGD on the cross-entropy and targeted, FAB, Square.
    """
    attack = torchattacks.AutoAttack(ChannelsLast(model), norm="Linf", eps=eps, version=version, seed=seed)
    blocks = zip(images.split(batch_size), labels.split(batch_size), strict=True)
    # torchattacks rounds its box and ball by half a millionth.
    moved = torch.cat([attack(some, answers).detach() for some, answers in blocks])
    inside = moved.maximum(images - eps).minimum(images + eps).clamp(0, 1)
    return ~clean_correct(model, inside, labels)


def compare(variant: str, count: int) -> list[Ratio]:
    """How far the robust accuracy under each of our attacks is above AutoAttack's, on the first `count` test images."""
    run, device, last = find(defense_recipes("laptop")[variant], 0), best_device(), long_attacks(EPS, STEPS)[-1]
    model = run.model().to(device).eval()
    images, labels = (part[:count].to(device) for part in embedded("test"))
    images, attacks = to_float(images), strongest(EPS, seed=0)
    left = {
        "strongest": robust_correct(model, images, labels, attacks, amp=True),
        "autoattack": trials_of(run, [(NONE, last)], images=count)[NONE, last].to(device),
    }
    # Images that an attack of ours fools cannot show it to be too weak.
    tried = left["strongest"] | left["autoattack"]
    fooled = torch.zeros_like(tried)
    if tried.any():
        fooled[tried] = fooled_by_autoattack(model, images[tried], labels[tried], eps=EPS)
    for name, ours in left.items():
        both = int((ours & ~fooled).sum())
        print(f"{run.path.name}, {count} images, {name}: {int(ours.sum())} correct, {both} under AutoAttack too")
    return [Ratio(PROMISES[name], 100 * int((ours & fooled).sum()) / count, device) for name, ours in left.items()]


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.autoattack", description=__doc__.split("\n")[0])
    parser.add_argument("--variant", choices=VARIANTS, action="append", help="published network (default: both)")
    parser.add_argument("--images", type=int, default=1_000, help="test images of CIFAR-10 (default: 1000)")
    asked = parser.parse_args(arguments)
    return report([ratio for variant in asked.variant or VARIANTS for ratio in compare(variant, asked.images)])


if __name__ == "__main__":
    sys.exit(main())
