"""Timing ways of doing the same thing side by side, and saying whether a promised ratio is kept."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tqdm import tqdm


@dataclass(frozen=True)
class Ratio:
    """A measured ratio and what was promised.

    Attributes:
        name: what was compared.
        value: measured.
        target: promised.
        at_least: whether the value must be at least the target, or at most.
        unit: what follows the numbers: "x" or " %".
    """

    name: str
    value: float
    target: float
    at_least: bool
    unit: str = "x"

    def kept(self) -> bool:
        """Whether the promise holds."""
        return self.value >= self.target if self.at_least else self.value <= self.target

    def line(self) -> str:
        """A row of the printed table."""
        value, verdict = f"{self.value:.1f}{self.unit}", "kept" if self.kept() else "MISSED"
        target = f"{'at least' if self.at_least else 'at most'} {self.target:g}{self.unit}"
        return f"{self.name:<52} {value:>9}   {target:<15} {verdict}"


def interleaved(ways: Mapping[str, Callable[[], object]], repeats: int, pause: float = 0.0) -> dict[str, list[float]]:
    """Seconds of each way, `repeats` times, one way after the other: a slow moment of the machine then meets all.

    Args:
        ways: name and function; each is called once before any is timed.
        repeats: 1 or more.
        pause: seconds of rest before each timing, in which what a way left running comes to its end.
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
    for ratio in ratios:
        print(ratio.line())
    return 0 if all(ratio.kept() for ratio in ratios) else 1
