"""The memory that a report on ResNet-50 takes beside the network, and the seconds of `hfc report --quick` on it.

Run: python -m benchmarks.reports
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.models import resnet50

from benchmarks.measure import PROMISES, Ratio, report
from benchmarks.memory import SIDE, peak
from hfclib import Classifier, make_report


def memory(images: int, steps: int) -> float:
    """MB beyond those of the network of random weights, for the accuracy, noise, attack and phase on made images."""
    torch.manual_seed(0)
    network = Classifier(resnet50().eval())
    data = torch.rand(images, 3, SIDE, SIDE), torch.randint(1000, (images,))
    before = peak()
    with tempfile.TemporaryDirectory() as folder:
        options = {"radii": 28, "colour": [0.5] * 3, "steps": steps, "parts": ["noise", "energy", "phase"]}
        make_report(network, data, Path(folder) / "report", images=images, **options)
    return peak() - before


def quick(images: int) -> float:
    """Seconds of the command, from its start to its end, on made pictures of 256 pixels; the process is a new one."""
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "pictures"
        pictures.mkdir()
        for number in range(images):
            pixels = generator.integers(0, 256, (256, 256, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(pictures / f"{number}.png")
        words = ["report", "torchvision:resnet50", "--data", pictures, "--unlabelled", "--quick"]
        command = [sys.executable, "-m", "hfclib.cli", *map(str, words), "--out", str(Path(folder) / "report")]
        start = time.perf_counter()
        subprocess.run(command, check=True)
        return time.perf_counter() - start


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reports", description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=100, help="made images of 224 x 224 pixels (default: 100)")
    parser.add_argument("--steps", type=int, default=2, help="of PGD (default: 2)")
    parser.add_argument("--pictures", type=int, default=300, help="that --quick may choose from (default: 300)")
    options = parser.parse_args(arguments)
    values = {"report_memory": memory(options.images, options.steps), "quick": quick(options.pictures)}
    return report([Ratio(PROMISES[name], value, torch.device("cpu")) for name, value in values.items()])


if __name__ == "__main__":
    sys.exit(main())
