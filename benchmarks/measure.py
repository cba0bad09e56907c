"""Timing ways of doing the same thing side by side, and saying whether a promised ratio is kept."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from tqdm import tqdm

from hfclib.devices import gains_from_bf16


@dataclass(frozen=True)
class Promise:
    """What is promised of a ratio, by kind of processor; the same table as in README.md.

    Attributes:
        name: what is compared.
        with_bf16, without: the bound where the hardware has bfloat16 arithmetic, and elsewhere.
        at_least: whether the value must be at least the bound, or at most.
        unit: what follows the numbers.
    """

    name: str
    with_bf16: float
    without: float
    at_least: bool = True
    unit: str = "x"


PROMISES = {
    "split": Promise("split: times as fast as NumPy, image by image", 35, 35),
    "copy": Promise("split: times as long as a copy of the images", 5, 5, at_least=False),
    "large": Promise("split: times as fast as fft2, 224 px", 2, 2),
    "memory": Promise("band_accuracy: memory beside the network", 500, 500, at_least=False, unit=" MB"),
    "report_memory": Promise("report: memory beside ResNet-50, 224 px", 3000, 3000, at_least=False, unit=" MB"),
    "quick": Promise("report --quick on ResNet-50, 224 px", 60, 60, at_least=False, unit=" s"),
    "heat_map": Promise("heat map: times as fast as a plain loop", 3, 1.8),
    "training": Promise("training: times as fast as the plain loop", 2.2, 1.4),
    "data": Promise("training: time more than on one fixed batch", 10, 10, at_least=False, unit=" %"),
    "pgd": Promise("PGD: times as fast as the faster library", 2.4, 1.3),
    "pgd_stopping": Promise("PGD: the same, stopping at fooled images", 9, 5),
    "pgd_accuracy": Promise("PGD: robust accuracies, points apart", 0.5, 0.5, at_least=False, unit=""),
    "autoattack": Promise("robust accuracy above AutoAttack's", 2, 2, at_least=False, unit=" points"),
    "strongest": Promise("the same, under strongest()", 0.5, 0.5, at_least=False, unit=" points"),
}


@dataclass(frozen=True)
class Ratio:
    """A measured ratio, what was promised of it, and the device on which it was measured."""

    promise: Promise
    value: float
    device: torch.device

    @property
    def bound(self) -> float:
        """The promise for this kind of processor."""
        return self.promise.with_bf16 if gains_from_bf16(self.device) else self.promise.without

    def kept(self) -> bool:
        """Whether the promise holds."""
        return self.value >= self.bound if self.promise.at_least else self.value <= self.bound

    def line(self) -> str:
        """A row of the printed table."""
        unit, verdict = self.promise.unit, "kept" if self.kept() else "MISSED"
        bound = f"{'at least' if self.promise.at_least else 'at most'} {self.bound:g}{unit}"
        return f"{self.promise.name:<46} {f'{self.value:.1f}{unit}':>11}   {bound:<16} {verdict}"


def interleaved(ways: Mapping[str, Callable[[], object]], repeats: int, pause: float = 0.0) -> dict[str, list[float]]:
    """Seconds of each way, `repeats` times, the ways taking turns: a slow moment of the machine then affects all.

    Args:
        ways: name and function; each is called once before any is timed.
        repeats: 1 or more.
        pause: seconds of rest before each timing, in which processes of other ways finish their work.
    Returns:
        For each way its seconds, in order.
    """
    seconds = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in tqdm(range(repeats), desc="repeats", leave=False):
        for name, way in ways.items():
            time.sleep(pause)
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def median_ratio(numerator: list[float], denominator: list[float]) -> float:
    """Median over repeats of one way's seconds by another's, repeat by repeat."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def report(ratios: list[Ratio]) -> int:
    """Print the table; returns the exit status: 0 if every promise is kept, else 1."""
    has = "with" if gains_from_bf16(ratios[0].device) else "without"
    print(f"measured, promised for a processor {has} bfloat16 arithmetic:")
    for ratio in ratios:
        print(ratio.line())
    return 0 if all(ratio.kept() for ratio in ratios) else 1
