"""hfclib's training loop against a plain PyTorch loop, and against the same network on one fixed batch.

Run: python -m benchmarks.training --steps 20
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.measure import PROMISES, Ratio, interleaved, median_ratio, report
from hfclib.data.cifar import embedded
from hfclib.devices import best_device, device_name, gains_from_bf16
from hfclib.paper.presets import fig4_recipes
from hfclib.training.batches import PADDING, Batches
from hfclib.training.loop import initial_model, make_optimizer, training_step
from hfclib.training.recipe import Recipe

WORKERS = (0, 2)
PAUSE = 0.5  # seconds for the loader processes to fill their queues again, so that they disturb no other way
Batch = tuple[Tensor, Tensor]
Step = Callable[[Tensor, Tensor], float]


class Pictures(Dataset):
    """Images as PIL pictures, which the transforms of a plain loop work on."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable[[Image.Image], Tensor]) -> None:
        self.pixels, self.labels, self.transform = images.permute(0, 2, 3, 1).numpy(), labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def plain_transform(augment: bool) -> transforms.Compose:
    """What a plain loop does to a picture: crop and flip at random, and scale to [0, 1]."""
    drawn = [transforms.RandomCrop(32, padding=PADDING), transforms.RandomHorizontalFlip()] if augment else []
    return transforms.Compose([*drawn, transforms.ToTensor()])


def plain_loader(images: Tensor, labels: Tensor, recipe: Recipe, workers: int) -> DataLoader:
    """The batches of a plain loop: float32, NCHW, shuffled."""
    pictures, size = Pictures(images, labels, plain_transform(recipe.data.augment)), recipe.data.batch_size
    return DataLoader(pictures, size, shuffle=True, num_workers=workers, persistent_workers=workers > 0)


def plain_step(model: nn.Module, recipe: Recipe, device: torch.device) -> Step:
    """A step of a plain loop: float32, NCHW, PyTorch's default Adam; returns the loss."""
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.optimizer.learning_rate)

    def step(images: Tensor, labels: Tensor) -> float:
        loss = F.cross_entropy(model(images.to(device)), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def our_step(model: nn.Module, recipe: Recipe) -> Step:
    """A step of `hfclib.training`; returns the loss."""
    optimizer, _ = make_optimizer(model, recipe, recipe.epochs)
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)

    def step(images: Tensor, labels: Tensor) -> float:
        return training_step(model, images, labels, recipe, optimizer, rng=rng, generator=generator)[0].item()

    return step


def our_batches(images: Tensor, labels: Tensor, recipe: Recipe, device: torch.device) -> Iterator[Batch]:
    """hfclib's batches, epoch after epoch."""
    batches = Batches(images, labels, batch_size=recipe.data.batch_size, augment=recipe.data.augment, device=device)
    generator = torch.Generator().manual_seed(0)
    return itertools.chain.from_iterable(batches.epoch(generator) for _ in itertools.count())


def endless(loader: DataLoader) -> Iterator[Batch]:
    """A loader's batches, epoch after epoch."""
    return itertools.chain.from_iterable(loader for _ in itertools.count())


def network(recipe: Recipe, device: torch.device, memory_format: torch.memory_format) -> nn.Module:
    """The recipe's network in training mode, with the same weights at every call."""
    return initial_model(recipe, 0).to(device, memory_format=memory_format).train()


def compare(
    images: Tensor, labels: Tensor, recipe: Recipe, *, steps: int, repeats: int, workers: tuple[int, ...] = WORKERS
) -> list[Ratio]:
    """Measure both ratios.

    Args:
        images, labels: uint8 (N, 3, 32, 32) and int64 (N,); N a multiple of the batch size, so that every step has
            as much to do.
        recipe: network, batch size and augmentation of every way.
        steps: steps of each timing; as many warm up.
        repeats: timings of each way.
        workers: a plain loop for each number of loader processes; the best of them counts.
    """
    device = best_device()

    def way(step: Step, batches: Iterator[Batch]) -> Callable[[], object]:
        return lambda: [step(*batch) for batch in itertools.islice(batches, steps)]

    ways = {}
    for count in workers:
        step = plain_step(network(recipe, device, torch.contiguous_format), recipe, device)
        ways[f"plain loop, {count} workers"] = way(step, endless(plain_loader(images, labels, recipe, count)))
    plain = list(ways)
    ours = [our_step(network(recipe, device, torch.channels_last), recipe) for _ in range(2)]
    ways["hfclib"] = way(ours[0], our_batches(images, labels, recipe, device))
    ways["one fixed batch"] = way(ours[1], itertools.repeat(next(our_batches(images, labels, recipe, device))))
    seconds = interleaved(ways, repeats, PAUSE)
    for name, times in seconds.items():
        print(f"{name}: {steps / float(np.median(times)):.2f} steps/s (median of {repeats})")
    best = min(plain, key=lambda name: np.median(seconds[name]))
    overhead = 100 * (median_ratio(seconds["hfclib"], seconds["one fixed batch"]) - 1)
    return [
        Ratio(PROMISES["training"], median_ratio(seconds[best], seconds["hfclib"]), device),
        Ratio(PROMISES["data"], overhead, device),
    ]


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=20, help="steps of each timing (default: 20)")
    parser.add_argument("--repeats", type=int, default=7, help="timings of each way (default: 7)")
    parser.add_argument("--variant", default="vanilla", choices=["vanilla", "batchnorm"], help="which network")
    parser.add_argument("--preset", default="laptop", choices=["smoke", "laptop"], help="how large a network")
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS, help="of the plain loop (default: 0 2)")
    options = parser.parse_args(arguments)
    recipe, device = fig4_recipes(options.preset)[options.variant], best_device()
    size = recipe.data.batch_size
    images, labels = (part[: len(part) // size * size] for part in embedded("train"))
    arithmetic = "bfloat16" if gains_from_bf16(device) else "float32"
    print(f"{recipe.name} on {device_name(device)}, hfclib in {arithmetic}, torch {torch.__version__}")
    ratios = compare(
        images, labels, recipe, steps=options.steps, repeats=options.repeats, workers=tuple(options.workers)
    )
    return report(ratios)


if __name__ == "__main__":
    sys.exit(main())
