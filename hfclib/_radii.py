"""Checks of radii, without PyTorch: the command line makes them before it imports anything."""

import math
from collections.abc import Sequence


def check_radius(radius: float) -> float:
    """`radius` as a float; raises TypeError if it is no number, ValueError if it is negative, NaN or infinite."""
    if not math.isfinite(radius) or radius < 0:
        raise ValueError(f"expected a finite radius of at least 0 DFT bins, got {radius!r}")
    return float(radius)


def check_cut(radius: float) -> float:
    """`check_radius`, for a radius that a caller chooses: between 0 and 1 bin there is nothing to choose from.

    Raises:
        TypeError, ValueError: as `check_radius`; or the radius is between 0 and 1, as a share of Nyquist would be.
    """
    if 0 < check_radius(radius) < 1:
        advice = "hfclib.nyquist(share, images) converts a share of the Nyquist frequency"
        raise ValueError(f"expected a radius in DFT bins, 0 or at least 1, got {radius!r}: {advice}")
    return float(radius)


def check_cuts(radii: Sequence[float]) -> None:
    """`check_cut` for each; ValueError too if one is given twice."""
    if len(set(map(check_cut, radii))) < len(radii):
        raise ValueError(f"expected different radii, got {radii}")
