"""The claims of the paper's section 7, with the rules that judge them, written before any of these detectors ended."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

# r = 128 keeps .168 of the DFT bins of a picture of 640 x 480 pixels, the commonest size in COCO. On our grid of
# 240 x 180 the same share is kept by 128 * 240 / 640.
MATCHED_RADIUS = 48
PUBLISHED = {"mAP x": 0.356, "mAP lfc": 0.275, "mAP hfc": 0.107, "better lfc": 1684 / 5000}  # COCO val2017, r = 128


@dataclass(frozen=True)
class DetectionClaim:
    """A claim and its rule.

    Attributes:
        id: unique.
        text: the claim in our words.
        first, second: the cells that are compared, each (column of the results, band, feed).
        relation: "above": first - second exceeds `bound`; "share": first / second is at least `bound`; "at least":
            first is at least `bound`.
        bound: see above.
        paper: the same number as published; None where the paper did not measure it.
    """

    id: str
    text: str
    first: tuple[str, str, str]
    second: tuple[str, str, str] | None
    relation: str
    bound: float
    paper: float | None

    def values(self, results: pd.DataFrame, radius: float = MATCHED_RADIUS) -> np.ndarray:
        """The number that the rule judges, one per seed."""
        one = _cell(results, *self.first, radius)
        if self.second is None:
            return one
        other = _cell(results, *self.second, radius)
        return one / np.maximum(other, 1e-9) if self.relation == "share" else one - other


_IMAGE, _LFC, _HFC, _HFC_MEAN = (
    ("mAP", *cell) for cell in (("x", "raw"), ("lfc", "raw"), ("hfc", "raw"), ("hfc", "mean"))
)
DETECTION_CLAIMS = [
    DetectionClaim(
        "detection-lfc-loses",
        "mAP on the LFC is lower than on images",
        _IMAGE,
        _LFC,
        "above",
        0.0,
        PUBLISHED["mAP x"] - PUBLISHED["mAP lfc"],
    ),
    DetectionClaim(
        "detection-hfc-below-lfc",
        "mAP on the HFC is lower than on the LFC",
        _LFC,
        _HFC,
        "above",
        0.0,
        PUBLISHED["mAP lfc"] - PUBLISHED["mAP hfc"],
    ),
    DetectionClaim(
        "detection-hfc-keeps",
        "On the HFC alone a fifth or more of the mAP is left",
        _HFC,
        _IMAGE,
        "share",
        0.2,
        PUBLISHED["mAP hfc"] / PUBLISHED["mAP x"],
    ),
    DetectionClaim(
        "detection-better-on-lfc",
        "A fifth or more of the images have an object that is found better on the LFC",
        ("better", "lfc", "raw"),
        None,
        "at least",
        0.2,
        PUBLISHED["better lfc"],
    ),
    DetectionClaim(
        "detection-better-than-mirror",
        "More images have an object found better on the LFC than have one found better on the mirror image",
        ("better", "lfc", "raw"),
        ("better", "mirror", "raw"),
        "above",
        0.0,
        None,
    ),
    DetectionClaim(
        "detection-hfc-colour",
        "The mean colour, added to the HFC, raises its mAP",
        _HFC_MEAN,
        _HFC,
        "above",
        0.0,
        None,
    ),
]


def _cell(results: pd.DataFrame, column: str, band: str, feed: str, radius: float) -> np.ndarray:
    """A column of one condition, one value per seed; the image and its mirror image have no radius."""
    radius = 0 if band in ("x", "mirror") else radius
    rows = results[(results["band"] == band) & (results["feed"] == feed) & (results["radius"] == radius)]
    return rows.sort_values("seed")[column].to_numpy()


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean over seeds and its 95 % interval, Student's t; a single seed has no interval (NaN)."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return float(values.mean()), float("nan"), float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def judge(results: pd.DataFrame) -> pd.DataFrame:
    """One row per claim: its number (mean over seeds), the 95 % interval, the paper's number and the verdict.

    The rule. "above": reproduced if the whole interval is above the bound, not reproduced here if all of it is at or
    below. "share" and "at least": reproduced if the whole interval is at or above the bound, not reproduced here if all
    of it is below. Anything else, and a single seed, is inconclusive.

    Args:
        results: from `store.gather`, of preset laptop.
    """
    rows = []
    for claim in DETECTION_CLAIMS:
        mean, low, high = interval(claim.values(results))
        holds = low > claim.bound if claim.relation == "above" else low >= claim.bound
        fails = high <= claim.bound if claim.relation == "above" else high < claim.bound
        verdict = "reproduced" if holds else "not reproduced here" if fails else "inconclusive"
        rows.append((claim.id, claim.text, claim.relation, claim.bound, mean, low, high, claim.paper, verdict))
    columns = ["id", "claim", "relation", "bound", "ours", "low", "high", "paper", "verdict"]
    return pd.DataFrame(rows, columns=columns)
