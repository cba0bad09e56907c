"""The Fourier heat map of a report against a plain loop over its cells.

Run: python -m benchmarks.heat_map
"""

import argparse
import sys
from copy import deepcopy
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.measure import PROMISES, Ratio, interleaved, median_ratio, report
from hfclib.data.cifar import embedded, to_float
from hfclib.devices import best_device, device_name
from hfclib.paper.presets import fig4_recipes
from hfclib.reporting.parts import heat_map
from hfclib.runs.store import find

NORM, BATCH = 4.0, 100


@torch.no_grad()
def plain_heat_map(model: nn.Module, images: Tensor, labels: Tensor, *, grid: int) -> dict[tuple[int, int], float]:
    """The error rate at each frequency (row, column) of the map, one cell after the other, in float32.

    Args:
        model: in evaluation mode, on the images' device.
        images, labels: (N, 3, H, W) in [0, 1], and (N,).
        grid: frequencies per axis, from -Nyquist to Nyquist.
    """
    height, width = images.shape[-2:]
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (*images.shape[:2], 1, 1), generator=generator).to(images) * 2 - 1
    errors = {}
    for row in np.linspace(-(height // 2), height // 2, grid).round().astype(int):
        for column in np.linspace(-(width // 2), width // 2, grid).round().astype(int):
            spectrum = torch.zeros(height, width)
            spectrum[row % height, column % width] = spectrum[-row % height, -column % width] = 1
            plane = torch.fft.ifft2(spectrum).real
            noisy = images + NORM * signs * (plane / plane.norm()).to(images)
            predictions = torch.cat([model(batch).argmax(dim=1) for batch in noisy.split(BATCH)])
            errors[int(row), int(column)] = (predictions != labels).float().mean().item()
    return errors


def compare(model: nn.Module, images: Tensor, labels: Tensor, *, grid: int, repeats: int) -> list[Ratio]:
    """Measure the ratio, and how far apart the two maps are; arguments as in `plain_heat_map`."""
    plain = deepcopy(model).to(memory_format=torch.contiguous_format)
    made = {}

    def mapping(name: str, way: partial) -> None:
        made[name] = way()

    ways = {
        "plain": partial(mapping, "plain", partial(plain_heat_map, plain, images, labels, grid=grid)),
        "ours": partial(mapping, "ours", partial(heat_map, model, images, labels, grid=grid, norm=NORM, seed=0)),
    }
    seconds = interleaved(ways, repeats)
    apart = max(abs(made["plain"][row["row"], row["column"]] - row["error"]) for row in made["ours"])
    took = {name: f"{np.median(times):.1f} s" for name, times in seconds.items()}
    print(f"{len(images)} images, {grid} x {grid} frequencies: {took}, error rates at most {apart:.3f} apart")
    return [Ratio(PROMISES["heat_map"], median_ratio(seconds["plain"], seconds["ours"]), images.device)]


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.heat_map", description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=256, help="test images of CIFAR-10 (default: 256)")
    parser.add_argument("--grid", type=int, default=7, help="frequencies per axis (default: 7)")
    parser.add_argument("--repeats", type=int, default=3, help="timings of each way (default: 3)")
    options = parser.parse_args(arguments)
    device = best_device()
    model = find(fig4_recipes("laptop")["batchnorm"], 0).model().to(device).eval()
    images, labels = (part[: options.images].to(device) for part in embedded("test"))
    print(f"laptop-batchnorm on {device_name(device)}, torch {torch.__version__}")
    return report(compare(model, to_float(images), labels, grid=options.grid, repeats=options.repeats))


if __name__ == "__main__":
    sys.exit(main())
