"""The memory that `hfclib.band_accuracy` takes for a stream of large images, beside the network's own.

Run: python -m benchmarks.memory
"""

import argparse
import resource
import sys
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from benchmarks.measure import PROMISES, Ratio, report
from hfclib import band_accuracy
from hfclib.batching import BATCH_SIZE

SIDE, CLASSES = 224, 10


def stream(count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """`count` made images (N, 3, 224, 224) and labels (N,), a batch at a time."""
    for start in range(0, count, BATCH_SIZE):
        size = min(BATCH_SIZE, count - start)
        yield torch.rand(size, 3, SIDE, SIDE), torch.randint(CLASSES, (size,))


def peak() -> float:
    """The most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=20_000, help="made images of 224 x 224 pixels (default: 20000)")
    count = parser.parse_args(arguments).images
    network = nn.Sequential(nn.Conv2d(3, 8, 7, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = network.append(nn.Linear(8, CLASSES)).eval()
    before = peak()
    table = band_accuracy(network, stream(count), colour=[0.5] * 3)
    print(f"{count} images, {len(table)} rows: {before:.0f} MB with the network, at most {peak():.0f} MB on the way")
    return report([Ratio(PROMISES["memory"], peak() - before, torch.device("cpu"))])


if __name__ == "__main__":
    sys.exit(main())
