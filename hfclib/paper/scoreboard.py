"""The paper's claims that were tested, and the scoreboard of what came of them; the rule is in `verdicts`."""

from collections.abc import Mapping

import pandas as pd

from hfclib.paper.intervals import MissingRunError
from hfclib.paper.registry import CHAPTERS
from hfclib.paper.tables import with_interval
from hfclib.paper.verdicts import Claim, verdict

CLAIMS: tuple[Claim, ...] = tuple(claim for chapter in CHAPTERS.values() for claim in chapter.claims)


def scoreboard(evidence: Mapping[str, pd.DataFrame], version: str | None = None) -> pd.DataFrame:
    """All claims about the given figures, or those of one version, as a reader's table.

    Args:
        evidence: by figure: the final accuracies from `gather` for "fig1" and "fig4", the counts with a column
            seed from `counts_over_seeds` for "fig2", the kernels from `kernel_measures` for "fig3",
            the trials from `trials_table` and `strong_trials`, one below the other, for "defense".
        version: only claims tested under this condition.
    Returns:
        Index the claim's id; columns claim, version, section, paper, ours ("mean [low, high]"), interval (over what),
        verdict, figure. A claim whose runs are missing is there, with the verdict "run missing".
    """
    rows = {}
    for claim in CLAIMS:
        if claim.figure not in evidence or version not in (None, claim.version):
            continue
        try:
            found = claim.statistic(evidence[claim.figure])
            ours = with_interval(found.mean, found.low, found.high)
            judged = verdict(claim.relation, found.low, found.high, claim.bound)
            over = found.what
        except MissingRunError:
            ours, judged, over = "not measured", "run missing", "none"
        rows[claim.id] = (
            claim.text,
            claim.version,
            claim.section,
            claim.paper or "not published",
            ours,
            over,
            judged,
            claim.figure,
        )
    columns = ["claim", "version", "section", "paper", "ours", "interval", "verdict", "figure"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("id")


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
    """The tables that `scoreboard` takes, by chapter, from stored runs at "laptop"; nothing is trained.

    Returns:
        One table per chapter that tests claims; a chapter without a stored run is left out.
    """
    found = {name: chapter.published() for name, chapter in CHAPTERS.items()}
    return {name: table for name, table in found.items() if table is not None and len(table)}
