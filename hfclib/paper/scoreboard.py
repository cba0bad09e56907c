"""The scoreboard: every claim that the chapters test, with what came of it. `verdicts` has the rule."""

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd

from hfclib.paper.claims import Claim
from hfclib.paper.registry import CHAPTERS
from hfclib.paper.tables import decimals, in_words
from hfclib.paper.verdicts import FACTOR, MARGIN
from hfclib.runs.collect import Runs

CLAIMS: tuple[Claim, ...] = tuple(claim for chapter in CHAPTERS.values() for claim in chapter.claims)
COLUMNS = ["claim", "version", "tested", "ours", "seeds", "paper", "within", "verdict", "section", "figure"]
NUMBERS = ["mean", "low", "high", "published"]
_WITHIN = {True: "yes", False: "no", None: "\u2013"}
# What an interval covers, by a claim's units.
_UNITS = {
    "seeds": "over the seeds",
    "seeds and images": "over seeds and test images",
    "recipes": "over recipes, by bootstrap",
}
# Of claims whose statistic is exactly 0 in truth, the share that each verdict on a direction has by chance.
BY_CHANCE = 0.025
PUBLISHED = "published runs"  # a column of `notebook_scoreboard`


def scoreboard(evidence: Mapping[str, pd.DataFrame | None], *, preset: str = "laptop") -> pd.DataFrame:
    """All claims about the given chapters and preset as a table to read.

    Args:
        evidence: by chapter, the table on which its claims are judged (`Chapter.evidence`); None without a stored run.
        preset: whose networks are in the evidence. Claims about "narrow" are judged on "narrow"; the others on any
            preset but that, such as one of yours.
    Returns:
        Index the claim's id; COLUMNS. "tested" says what the rule compares: a direction, a size or a bound. "ours" is
        "mean [low, high]" over "seeds" networks, the mean alone for a single one; "within" says whether the paper's
        value lies in that interval. A claim whose runs are missing has the verdict "run missing". Last come NUMBERS,
        the same as numbers, NaN where there is none.
    """
    rows = {}
    claims = [claim for claim in CLAIMS if claim.chapter in evidence and _is_about(claim, preset)]
    estimates = {}
    for name, table in evidence.items():
        if table is not None and len(table):
            estimates |= CHAPTERS[name].estimates(table, [claim for claim in claims if claim.chapter == name])
    for claim in claims:
        ours, seeds, within, judged, numbers = "not measured", 0, None, "run missing", (np.nan,) * 3
        if estimate := estimates.get(claim.id):
            ours, seeds = in_words(estimate), estimate.seeds
            within, judged = claim.paper_within(estimate), claim.judge(estimate)
            numbers = estimate.mean, estimate.low, estimate.high
        outcome = ours, seeds, _paper(claim), _WITHIN[within], judged
        published = np.nan if claim.paper is None else claim.paper
        place = claim.section, claim.chapter
        rows[claim.id] = (claim.text, claim.version, _tested(claim), *outcome, *place, *numbers, published)
    return pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS + NUMBERS).rename_axis("id")


def _is_about(claim: Claim, preset: str) -> bool:
    return (claim.preset == "narrow") == (preset == "narrow")


def readable(board: pd.DataFrame) -> pd.DataFrame:
    """The columns of a `scoreboard` that a chapter shows, with the claim and its verdict in front."""
    beside = [PUBLISHED] if PUBLISHED in board else []
    shown = board.set_index("claim")[["verdict", "ours", "seeds", *beside, "paper", "within", "tested", "version"]]
    units = {_UNITS[claim.units] for claim in CLAIMS if claim.id in board.index} or {_UNITS["seeds"]}
    counted = "recipes" if units == {_UNITS["recipes"]} else "seeds"
    shown = shown.rename(columns={"seeds": counted, "within": "paper's value in our interval"})
    shown.attrs["caption"] = (
        f"The claims of this chapter: our statistic with its 95 % interval {' or '.join(sorted(units))}, "
        "and the paper's value."
    )
    if beside:
        shown.attrs["caption"] += " Of this notebook's runs, with the verdict on the published runs beside it."
    return shown


def _tested(claim: Claim) -> str:
    bound = decimals(claim.bound, 2)
    words = {
        "exceeds": "direction: above 0",
        "does not differ": f"bound: within {decimals(MARGIN, 2)} of 0",
        "at most": f"bound: at most {bound}",
        "at least": f"bound: at least {bound}",
        "about": f"size: {decimals(claim.bound / FACTOR, 2)} to {decimals(claim.bound * FACTOR, 2)}",
    }
    return words[claim.relation]


def _paper(claim: Claim) -> str:
    if claim.paper is None:
        return "not in the paper" if claim.section == "ours" else "not available to us"
    return decimals(claim.paper)


def published_scoreboard(chapters: Collection[str] = tuple(CHAPTERS), preset: str = "laptop") -> pd.DataFrame:
    """The `scoreboard` of chapters from all published runs of a preset, at "laptop" those of "narrow" too.

    Nothing is trained or attacked, and your own folder is not read.
    """
    boards = []
    for one in ("laptop", "narrow") if preset == "laptop" else (preset,):
        tested = {claim.chapter for claim in CLAIMS if _is_about(claim, one)}
        evidence = {name: CHAPTERS[name].published(one) for name in chapters if name in tested}
        boards.append(scoreboard(evidence, preset=one))
    board = pd.concat(boards)
    return board.loc[[claim.id for claim in CLAIMS if claim.id in board.index]]


def notebook_scoreboard(chapter: str, preset: str, runs: Runs, evidence: pd.DataFrame | None = None) -> pd.DataFrame:
    """The `published_scoreboard` of a chapter; of a notebook's own runs alone where not all of them are published.

    Args:
        chapter, preset: of the notebook.
        runs: of the notebook, see `Chapter.is_own`.
        evidence: the table on which claims about own runs are judged; None makes it.
    Returns:
        A scoreboard. That of own runs has a further column PUBLISHED: what came of the claim in the published runs of
        "laptop", or of "narrow" where the claim is about those.
    """
    about = CHAPTERS[chapter]
    if not about.is_own(preset, runs):
        return published_scoreboard([chapter], preset)
    board = scoreboard({chapter: about.evidence(runs) if evidence is None else evidence}, preset=preset)
    published = published_scoreboard([chapter]).loc[board.index]
    return board.assign(**{PUBLISHED: published["verdict"] + ": " + published["ours"]})


def expected_by_chance(board: pd.DataFrame) -> tuple[int, float]:
    """How many rows with a verdict test a direction, and how many of them chance alone would call reproduced.

    Chance alone means: no true difference in any of them. It would call as many contradicted.
    """
    judged = board["verdict"].isin(["reproduced", "contradicted", "not comparable", "inconclusive"])
    count = int(np.sum(judged & board["tested"].str.startswith("direction")))
    return count, BY_CHANCE * count
