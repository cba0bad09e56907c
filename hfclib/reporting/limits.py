"""Limits on what a report measures, for `--fail-if`; without PyTorch, so that a bad one is refused at once."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from hfclib._radii import check_cut
from hfclib.reporting.stored import Report


@dataclass(frozen=True)
class Limit:
    """A limit such as "hfc@8 > .4" or "test < 90 %": a report that meets it fails."""

    band: str
    radius: float | None
    sign: str
    share: float  # from 0 to 1

    @classmethod
    def parse(cls, text: str) -> "Limit":
        """The limit in a text: `test`, `lfc@RADIUS` or `hfc@RADIUS`, < or >, and a share such as .4 or 40 %.

        The radius is in DFT bins.

        Raises:
            ValueError: another text, or a share above 1 that is no percentage, or above 100 %.
        """
        number = r"(\d*\.?\d+)"
        match = re.fullmatch(rf"\s*(?:(test)|(lfc|hfc)\s*@\s*{number})\s*([<>])\s*{number}\s*(%?)\s*", text)
        if not match:
            raise ValueError(f"expected a limit such as hfc@8 > .4, lfc@28 < 50 % or test < .9, got {text!r}")
        test, band, radius, sign, given, percent = match.groups()
        share = Decimal(given) / (100 if percent else 1)  # so that 41.3 % is .413 itself
        if share > 1:
            raise ValueError(f"expected a limit of at most 1, or in percent such as 40 %, got {text!r}")
        return cls(test or band, check_cut(float(radius)) if radius else None, sign, float(share))

    def fails(self, report: Report) -> bool:
        """Whether a report is on the wrong side of the limit."""
        value = report.value(self.band, self.radius)
        return value > self.share if self.sign == ">" else value < self.share


def check_limits(limits: Iterable[Limit], radii: Sequence[float]) -> None:
    """Raise a ValueError if one of the limits is about a radius that is not measured."""
    for limit in limits:
        if limit.radius is not None and limit.radius not in radii:
            raise ValueError(f"expected a limit at a radius of {list(radii)}, got {limit.radius:g}")
