"""`hfclib.split` against the per-image, per-channel NumPy way, a copy of the images, and plain transforms at 224 px.

Run: python -m benchmarks.split
"""

import argparse
import sys
import time

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import PROMISES, Ratio, interleaved, median_ratio, report
from hfclib import split
from hfclib.data.cifar import embedded, to_float
from hfclib.frequency import mask

RADIUS = 12


def numpy_split(images: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """One image and one channel after the other, as in a textbook: a transform, and an inverse for each band.

    Args:
        images: (N, C, H, W) float.
        radius: DFT bins.
    Returns:
        (lfc, hfc), float64.
    """
    height, width = images.shape[-2:]
    down, across = np.ogrid[:height, :width]
    low = np.hypot(down - height // 2, across - width // 2) < radius  # made once, which favours this way
    lfc, hfc = np.empty(images.shape), np.empty(images.shape)
    for n in range(images.shape[0]):
        for c in range(images.shape[1]):
            spectrum = np.fft.fftshift(np.fft.fft2(images[n, c]))
            lfc[n, c] = np.real(np.fft.ifft2(np.fft.ifftshift(spectrum * low)))
            hfc[n, c] = np.real(np.fft.ifft2(np.fft.ifftshift(spectrum * ~low)))
    return lfc, hfc


def plain_split(images: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """All images (N, C, H, W) at once: a transform, the mask, and an inverse; the HFC is the difference."""
    low = torch.fft.ifftshift(mask(*images.shape[-2:], radius))
    lfc = torch.fft.ifft2(torch.fft.fft2(images) * low).real
    return lfc, images - lfc


def compare_large(images: Tensor, repeats: int) -> list[Ratio]:
    """Measure the ratio to `plain_split` on images (N, C, H, W)."""
    seconds = interleaved(
        {"split": lambda: split(images, RADIUS), "plain": lambda: plain_split(images, RADIUS)}, repeats
    )
    times = ", ".join(f"{name} {1000 * float(np.median(some)):.0f} ms" for name, some in seconds.items())
    print(f"{len(images)} images of {images.shape[-2]} x {images.shape[-1]}: {times}")
    return [Ratio(PROMISES["large"], median_ratio(seconds["plain"], seconds["split"]), images.device)]


def compare(images: Tensor, repeats: int) -> list[Ratio]:
    """Measure both ratios on images (N, C, H, W), float in [0, 1]."""
    ways = {"split": lambda: split(images, RADIUS), "copy": images.clone}
    seconds = interleaved(ways, repeats)
    start = time.perf_counter()  # once: it takes so long that a passing disturbance hardly counts
    numpy_split(images.numpy(), RADIUS)
    slow = time.perf_counter() - start
    fast = float(np.median(seconds["split"]))
    print(
        f"{len(images)} images: NumPy {slow:.2f} s, split {1000 * fast:.1f} ms, "
        f"copy {1000 * float(np.median(seconds['copy'])):.1f} ms"
    )
    return [
        Ratio(PROMISES["split"], slow / fast, images.device),
        Ratio(PROMISES["copy"], median_ratio(seconds["split"], seconds["copy"]), images.device),
    ]


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.split", description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=10_000, help="test images of CIFAR-10 (default: 10000)")
    parser.add_argument("--large", type=int, default=64, help="made images of 224 x 224 pixels (default: 64)")
    parser.add_argument("--repeats", type=int, default=15, help="timings of all ways but NumPy's (default: 15)")
    options = parser.parse_args(arguments)
    print(f"{torch.get_num_threads()} thread(s), torch {torch.__version__}, numpy {np.__version__}")
    ratios = compare(to_float(embedded("test")[0][: options.images]), options.repeats)
    return report(ratios + compare_large(torch.rand(options.large, 3, 224, 224), options.repeats))


if __name__ == "__main__":
    sys.exit(main())
