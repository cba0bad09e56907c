"""Whether our attacks overstate robustness: what AutoAttack fools of the images that they do not fool.

Needs torchattacks: `make test` installs it. Run: python -m benchmarks.autoattack
"""

import argparse
import sys

import torch

from benchmarks.measure import PROMISES, Ratio, report
from hfclib.attacks.auto import strongest
from hfclib.attacks.robustness import robust_correct
from hfclib.data.cifar import embedded, to_float
from hfclib.devices import best_device
from hfclib.paper.defense.setup import NONE, attack_functions, autoattack, defense_recipes, long_attacks
from hfclib.paper.defense.trials import trials_of
from hfclib.runs.store import find

EPS, STEPS = 8 / 255, 20
VARIANTS = ("adversarial_batchnorm", "adversarial")


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
    components = [attack_functions(attack, model)[0] for attack in autoattack(EPS)]
    fooled = torch.zeros_like(tried)
    fooled[tried] = ~robust_correct(model, images[tried], labels[tried], components)
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
