"""The claims of the paper's section 7. Their rules were written before any of the published detectors ended."""

from functools import partial

import numpy as np
import pandas as pd

from hfclib.paper.intervals import Estimate, over_seeds
from hfclib.paper.verdicts import Claim

MATCHED_RADIUS = 48  # keeps .168 of the DFT bins of our 240 x 180, as r = 128 does of 640 x 480, COCO's commonest size
PAPER_DETECTION = {"mAP x": 0.356, "mAP lfc": 0.275, "mAP hfc": 0.107, "better lfc": 1684 / 5000}  # COCO, r = 128

Cell = tuple[str, str, str]  # column of the results, band, feed


def _values(results: pd.DataFrame, cell: Cell) -> np.ndarray:
    """One value per seed, at the matched radius; the image and its mirror image have the radius 0."""
    column, band, feed = cell
    at_radius = results["radius"].isin([0, MATCHED_RADIUS])
    rows = results[(results["band"] == band) & (results["feed"] == feed) & at_radius]
    return rows.sort_values("seed")[column].to_numpy()


def _estimate(results: pd.DataFrame, *, first: Cell, second: Cell | None, ratio: bool) -> Estimate:
    values = _values(results, first)
    if second:
        other = _values(results, second)
        values = values / np.maximum(other, 1e-9) if ratio else values - other
    return over_seeds(values)


def _claim(
    name: str,
    text: str,
    first: Cell,
    second: Cell | None = None,
    at_least: float = 0.0,
    paper: float | None = None,
    section: str = "section 7",
) -> Claim:
    """A claim on the difference of two cells, above 0; or on their ratio, or on a single cell, of at least a bound."""
    return Claim(
        id=f"detection-{name}",
        figure="detection",
        section=section,
        version=f"blood cells, r = {MATCHED_RADIUS}, {'feed mean less raw' if 'mean' in first else 'bands fed raw'}",
        text=text,
        relation="at least" if at_least else "exceeds",
        bound=at_least,
        statistic=partial(_estimate, first=first, second=second, ratio=at_least > 0),
        paper=paper,
        comparable=section == "ours",
    )


_IMAGE, _LFC, _HFC = (("mAP", band, "raw") for band in ("x", "lfc", "hfc"))
_HFC_MEAN = ("mAP", "hfc", "mean")
_BETTER, _BETTER_MIRROR = ("better", "lfc", "raw"), ("better", "mirror", "raw")
_X, _L, _H, _SHARE = PAPER_DETECTION.values()
_FIFTH = "A fifth or more of the images have an object that is found better on the LFC"
_MORE = "More images have an object found better on the LFC than have one found better on the mirror image"
DETECTION_CLAIMS = (
    _claim("lfc-loses", "mAP on the LFC is lower than on images", _IMAGE, _LFC, paper=_X - _L),
    _claim("hfc-below-lfc", "mAP on the HFC is lower than on the LFC", _LFC, _HFC, paper=_L - _H),
    _claim("hfc-keeps", "On the HFC alone a fifth or more of the mAP is left", _HFC, _IMAGE, 0.2, _H / _X),
    _claim("better-on-lfc", _FIFTH, _BETTER, None, 0.2, _SHARE),
    _claim("better-than-mirror", _MORE, _BETTER, _BETTER_MIRROR, section="ours"),
    _claim("hfc-colour", "The mean colour, added to the HFC, raises its mAP", _HFC_MEAN, _HFC, section="ours"),
)
