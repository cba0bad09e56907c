"""The trade-off between accuracy and robustness that the paper derives from the two components (section 3).

Definitions. A network f is right at (x, y) if f(x) = y. It is right and robust there, for a metric d and a size eps, if
f(x') = y for every array x' with d(x, x') <= eps, in [0, 1] or not. x_l is the LFC of x at some radius.

Corollary 1. If f(x) != f(x_l), then f is not right and robust at (x, y) for any eps >= d(x, x_l). For x_l is itself one
of the x': were f right and robust, both f(x) and f(x_l) would equal y.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from hfclib.frequency import split
from hfclib.predictions import Predictions
from hfclib.tables import FIG2_TITLES, decimals

METRICS = ("l2", "linf")


def distances(images: Tensor, radii: Sequence[float]) -> dict[str, Tensor]:
    """How far each image is from its LFC.

    Args:
        images: (N, C, H, W) float in [0, 1].
        radii: DFT bins.
    Returns:
        By metric, "l2" and "linf": (len(radii), N), in units of pixels in [0, 1]. An LFC may leave [0, 1]; it is not
        clipped, since the corollary speaks of x_l itself.
    Raises:
        TypeError, ValueError: as `split`.
    """
    found: dict[str, list[Tensor]] = {metric: [] for metric in METRICS}
    for radius in radii:
        difference = split(images, radius)[1].flatten(1)
        found["l2"].append(difference.norm(dim=1))
        found["linf"].append(difference.abs().amax(dim=1))
    return {metric: torch.stack(rows) for metric, rows in found.items()}


def ruled_out(distance: Tensor, changed: Tensor, eps: Sequence[float]) -> Tensor:
    """The share of images at which Corollary 1 rules out being right and robust.

    Args:
        distance: (R, N) between an image and its LFC at each of R radii, in one metric.
        changed: (R, N) bool, f(x) != f(x_l); or that only where f(x) = y, since a network that is wrong at x is not
            right and robust there in any case.
        eps: sizes, 0 or more, in the units of `distance`.
    Returns:
        (len(eps),) in [0, 1]: an image counts at eps if at any radius its answer changes and the distance is <= eps.
    Raises:
        ValueError: shapes differ, or an eps is negative or no number.
    """
    if distance.shape != changed.shape or distance.ndim != 2:
        raise ValueError(f"expected (R, N) twice, got {tuple(distance.shape)} and {tuple(changed.shape)}")
    if not all(one >= 0 for one in eps):
        raise ValueError(f"expected every eps to be at least 0, got {list(eps)}")
    smallest = torch.where(changed, distance, torch.inf).amin(dim=0)
    return torch.stack([(smallest <= one).float().mean() for one in eps])


def distance_table(found: Mapping[str, Tensor], radii: Sequence[int]) -> pd.DataFrame:
    """Quantiles of `distances`: a row a (metric, radius), columns q05, q25, q50, q75 and q95, and the smallest, min."""
    rows = []
    for metric, values in found.items():
        for radius, ones in zip(radii, values.double().numpy(), strict=True):
            quantiles = {f"q{100 * share:02.0f}": np.quantile(ones, share) for share in (0.05, 0.25, 0.5, 0.75, 0.95)}
            rows.append({"metric": metric, "radius": radius, "min": ones.min(), **quantiles})
    return pd.DataFrame(rows)


def changed(answers: Predictions, radii: Sequence[int], labels: Tensor | None = None) -> Tensor:
    """Where the answer to an image and to its LFC differ, raw, running statistics: the paper's assumption A2.

    Args:
        answers: of a network to N images.
        radii: DFT bins.
        labels: (N,) int64; with them, only images that the network gets right are looked at.
    Returns:
        (len(radii), N) bool.
    """
    found = torch.stack([answers.on("lfc", radius) for radius in radii]) != answers.on("x")
    return found if labels is None else found & (answers.on("x") == labels)


def changed_share(by_panel: Mapping[str, Tensor], radii: Sequence[int]) -> pd.DataFrame:
    """The share of images with another answer to the LFC: a row a radius, a column a panel, in [0, 1].

    Args:
        by_panel: `changed` of each panel.
        radii: its radii.
    """
    shares = {panel: one.float().mean(dim=1).tolist() for panel, one in by_panel.items()}
    return pd.DataFrame(shares, index=pd.Index(radii, name="radius"))


def curves(distance: Mapping[str, Tensor], by_panel: Mapping[str, Tensor], points: int = 80) -> pd.DataFrame:
    """`ruled_out` on a logarithmic grid of sizes.

    Args:
        distance: from `distances`.
        by_panel: `changed` of each panel.
        points: sizes a metric, from the smallest distance, but at least 1e-4, to the largest: an image may be its own
            LFC, and the grid is logarithmic.
    Returns:
        A row a (metric, panel, eps): share, in [0, 1].
    """
    rows = []
    for metric, values in distance.items():
        sizes = np.geomspace(max(float(values.min()), 1e-4), float(values.max()), points).tolist()
        for panel, one in by_panel.items():
            shares = ruled_out(values, one, sizes).tolist()
            rows.append(pd.DataFrame({"metric": metric, "panel": panel, "eps": sizes, "share": shares}))
    return pd.concat(rows, ignore_index=True)


def _size(one: float) -> str:
    return f"{255 * one:.4g}/255"


def table(distance: Tensor, by_panel: Mapping[str, Tensor], eps: Sequence[float]) -> pd.DataFrame:
    """The share of images ruled out in one metric: a row a size, a column a network, three decimals.

    Args:
        distance: (R, N), in pixels of [0, 1].
        by_panel: `changed` of each panel.
        eps: sizes, in the units of `distance`.
    """
    columns = {FIG2_TITLES[panel]: [decimals(share) for share in ruled_out(distance, one, eps).tolist()]
               for panel, one in by_panel.items()}  # fmt: skip
    return pd.DataFrame(columns, index=pd.Index(map(_size, eps), name="eps"))


def bites(distance: Tensor, by_panel: Mapping[str, Tensor], radii: Sequence[int], eps: Sequence[float]) -> pd.DataFrame:
    """At which radius the corollary bites, for each size.

    Args:
        distance: (R, N), in pixels of [0, 1].
        by_panel: `changed` of each panel.
        radii: the R radii, ascending.
        eps: sizes, in the units of `distance`.
    Returns:
        A row a size: the smallest radius at which any image is so near to its LFC, the share of images that are at the
        largest radius, and for each network the radius with most ruled-out images ("none" where there are none).
    """
    rows = []
    for one in eps:
        near = distance <= one
        reached = [radius for radius, any_near in zip(radii, near.any(dim=1).tolist(), strict=True) if any_near]
        row = {"eps": _size(one), "first radius with an image so near": str(reached[0]) if reached else "none",
               f"share so near at r = {radii[-1]}": decimals(near[-1].float().mean().item())}  # fmt: skip
        for panel, where in by_panel.items():
            hits = (near & where).sum(dim=1)
            most = int(hits.max())
            best = f"{radii[int(hits.argmax())]} ({most} image{'s' * (most > 1)})" if most else "none"
            row[f"radius that rules out most: {FIG2_TITLES[panel]}"] = best
        rows.append(row)
    return pd.DataFrame(rows).set_index("eps")
