"""How a report measures, without PyTorch, so that bad settings are refused at once."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real

from hfclib._radii import check_cuts
from hfclib.reporting.limits import Limit, check_limits

PART_NAMES = ("accuracy", "heat_map", "noise", "energy", "misaligned", "phase", "pictures")
LARGEST_BATCH = 100  # of `hfclib.batching`: with test-batch statistics it is part of what is measured


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """How a report measures.

    Attributes:
        name: of the network, on the page.
        radii: in DFT bins, at which images have two parts; one or several. None: PAPER_RADII up to 32 pixels, and
            beyond those at FRACTIONS of the Nyquist frequency, see `hfclib.nyquist`.
        parts: what is measured, of PART_NAMES; "accuracy" always is.
        images: so many of the first images are used for all parts but the accuracy.
        grid: frequencies per axis of the heat map.
        norm: of the noise. None: 4 in 32 x 32 pixels, and the same size per pixel.
        eps, steps: of PGD, see `attack_energy`. None: norm / 8, which is .5 in 32 x 32 pixels.
        seed: of all random numbers.
        colour: the mean colour of the data, a number per channel. None: that of all of them, which are then read once
            for it, before the accuracy reads them; a report that goes on has it already.
        limits: on what is measured, see `Limit`; not on radii that are not measured, nor on "test" if `unlabelled`.
        batch_size: the most images at once, up to 100, where no result hangs on it; the attack may take fewer.
        quick: the accuracy alone, and of it only what the page's first lines need: running averages, and the HFC with
            the mean colour.
        unlabelled: the data have no labels: each image counts as right where the network answers as for the whole one.
    Raises:
        TypeError, ValueError: a setting of another kind or range.
    """

    name: str = "a network"
    radii: float | Sequence[float] | None = None
    parts: Sequence[str] = PART_NAMES
    images: int = 256
    grid: int = 15
    norm: float | None = None
    eps: float | None = None
    steps: int = 10
    seed: int = 0
    colour: Sequence[float] | None = None
    limits: Sequence[str] = ()
    batch_size: int = LARGEST_BATCH
    quick: bool = False
    unlabelled: bool = False

    def __post_init__(self) -> None:
        for name, least in {"images": 2, "grid": 2, "steps": 0, "seed": 0, "batch_size": 1}.items():
            object.__setattr__(self, name, _whole(name, getattr(self, name), least))
        for name in ("norm", "eps"):
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        if self.batch_size > LARGEST_BATCH:
            raise ValueError(f"expected batch_size of at most {LARGEST_BATCH}, got {self.batch_size}")
        unknown = [part for part in self.parts if part not in PART_NAMES]
        if unknown or isinstance(self.parts, str):
            raise ValueError(f"expected parts, of {', '.join(PART_NAMES)}, got {', '.join(unknown) or self.parts}")
        if self.quick and tuple(self.parts) != PART_NAMES:
            raise ValueError("expected quick, which measures the accuracy alone, or parts, not both")
        if isinstance(self.radii, str):
            raise TypeError(f"expected radii, numbers in DFT bins, got {self.radii!r}")
        limits = [Limit.parse(text) for text in self.limits]
        if self.unlabelled and any(limit.band == "test" for limit in limits):
            raise ValueError("expected a limit on lfc or hfc, got one on test: without labels its accuracy is always 1")
        radii = self.chosen_radii()
        if radii is not None:
            check_cuts(radii)
            object.__setattr__(self, "radii", sorted(map(plain, radii)))
            check_limits(limits, sorted(map(plain, radii)))
        if self.colour is not None:
            object.__setattr__(self, "colour", [float(value) for value in self.colour])

    @property
    def measured_parts(self) -> list[str]:
        """The parts in their order, "accuracy" always; it alone if `quick`."""
        return [part for part in PART_NAMES if part == "accuracy" or (part in self.parts and not self.quick)]

    def chosen_radii(self) -> list[float] | None:
        """The radii, if some were chosen."""
        if self.radii is None:
            return None
        return list(self.radii) if isinstance(self.radii, Iterable) else [self.radii]

    def fitted(self, **known) -> "FittedSettings":
        """The settings with what is known of the images: radii, norm, eps, colour, and other fields in their place."""
        return FittedSettings(**vars(self) | known)


@dataclass(frozen=True, kw_only=True)
class FittedSettings(ReportSettings):
    """Settings that fit the images that are measured: radii, norm, eps and colour are known; see `ReportSettings`."""

    radii: Sequence[float] = field()  # without the default
    norm: float = field()
    eps: float = field()
    colour: Sequence[float] = field()


def plain(radius: float) -> float:
    """A radius as an int if it is whole: `report.json` has 8 and not 8.0."""
    return int(radius) if radius == int(radius) else float(radius)


def _whole(name: str, value: int, least: int) -> int:
    if not isinstance(value, Integral) or value < least:
        raise ValueError(f"expected {name}, a whole number of at least {least}, got {value!r}")
    return int(value)  # it may be NumPy's


def _number(name: str, value: float | None) -> float | None:
    if value is None:
        return None
    if not isinstance(value, Real):
        raise TypeError(f"expected {name}, a number such as 8 / 255, got {value!r}")
    if not 0 <= value < math.inf:
        raise ValueError(f"expected {name}, finite and at least 0, got {value}")
    return float(value)
