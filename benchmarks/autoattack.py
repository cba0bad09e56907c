"""Whether our strongest attack overstates robustness: what AutoAttack fools of the images that it does not fool.

Needs torchattacks: `make test` installs it. Run: python -m benchmarks.autoattack
"""

import argparse
import sys

import torch
import torchattacks
from torch import Tensor, nn

from benchmarks.measure import PROMISES, Ratio, report
from hfclib.attacks.robustness import robust_correct
from hfclib.data.cifar import embedded, to_float
from hfclib.devices import best_device
from hfclib.paper.defense.setup import NONE, defense_recipes, long_attacks
from hfclib.paper.defense.trials import trials_of
from hfclib.runs.store import find

EPS, STEPS = 8 / 255, 20


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
    return ~robust_correct(model, inside, labels, ())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--variant",
        default="adversarial_batchnorm",
        help="of hfclib.paper.defense.setup.defense_recipes, preset laptop",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=1_000)
    asked = parser.parse_args()
    run = find(defense_recipes("laptop")[asked.variant], asked.seed)
    if run is None:
        parser.error(f"no stored run of {asked.variant} with seed {asked.seed}")
    strongest = NONE, long_attacks(EPS, STEPS)[-1]
    ours = trials_of(run, [strongest], images=asked.images)[strongest]
    device = best_device()
    images, labels = embedded("test")
    images, labels = to_float(images[: asked.images])[ours].to(device), labels[: asked.images][ours].to(device)
    # Images that our attack fools cannot show it to be too weak.
    fooled = int(fooled_by_autoattack(run.model().to(device), images, labels, eps=EPS).sum()) if len(images) else 0
    print(
        f"{run.path.name}, {asked.images} test images, eps 8/255: {len(images)} correct under our strongest attack, "
        f"{len(images) - fooled} of these under AutoAttack too"
    )
    over = 100 * fooled / asked.images
    return report([Ratio(PROMISES["autoattack"], over, device)])


if __name__ == "__main__":
    sys.exit(main())
