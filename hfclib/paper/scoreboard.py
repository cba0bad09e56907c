"""The scoreboard: every claim that the chapters test, with what came of it. `verdicts` has the rule."""

from collections.abc import Mapping

import pandas as pd

from hfclib.paper.intervals import MissingRunError
from hfclib.paper.registry import CHAPTERS
from hfclib.paper.tables import with_interval
from hfclib.paper.verdicts import Claim

CLAIMS: tuple[Claim, ...] = tuple(claim for chapter in CHAPTERS.values() for claim in chapter.claims)
COLUMNS = ["claim", "version", "section", "paper", "ours", "interval", "verdict", "figure"]


def scoreboard(evidence: Mapping[str, pd.DataFrame], version: str | None = None) -> pd.DataFrame:
    """All claims about the given chapters, or those of one version, as a table to read.

    Args:
        evidence: by chapter, the table on which its claims are judged (`Chapter.evidence`).
        version: only claims tested under this condition.
    Returns:
        Index the claim's id; COLUMNS, of which ours is "mean [low, high]" and interval says what it is over. A claim
        whose runs are missing has the verdict "run missing".
    """
    rows = {}
    for claim in CLAIMS:
        if claim.figure not in evidence or version not in (None, claim.version):
            continue
        try:
            found = claim.statistic(evidence[claim.figure])
        except MissingRunError:
            result = "not measured", "none", "run missing"
        else:
            result = with_interval(found.mean, found.low, found.high), found.what, claim.judge(found)
        paper = claim.paper or "not available to us"
        rows[claim.id] = (claim.text, claim.version, claim.section, paper, *result, claim.figure)
    return pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS).rename_axis("id")


# The claims that the README shows; the book's scoreboard has all.
HEADLINES = (
    "fig1-lfc-exceeds-hfc-4",
    "fig1-grows-8",
    "fig1-hfc-4",
    "fig2-count-batchnorm-raw",
    "fig2-count-fullwidth-raw",
    "fig2-svd-batchnorm",
    "fig3-roughness-adversarial",
    "fig3-roughness-adversarial_batchnorm",
    *(
        f"fig4-{variant}-H{radius}-{version}"
        for version in ("as-published", "controlled")
        for variant in ("batchnorm", "mixup", "dropout")
        for radius in (4, 8)
    ),
    "defense-adversarial-pgd",
    "defense-rule-fgsm",
    "defense-rule-marginal",
    "defense-input-unaware",
    "defense-input-aware",
)


def published_evidence() -> dict[str, pd.DataFrame]:
    """By chapter, the tables that `scoreboard` takes, from stored runs at "laptop"; nothing is trained.

    Returns:
        A chapter without claims or without a stored run is left out.
    """
    found = {name: chapter.published() for name, chapter in CHAPTERS.items()}
    return {name: table for name, table in found.items() if table is not None and len(table)}
