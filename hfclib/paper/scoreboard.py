"""The scoreboard: every claim that the chapters test, with what came of it. `verdicts` has the rule."""

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd

from hfclib.paper.claims import Claim
from hfclib.paper.record import merged_into
from hfclib.paper.registry import CHAPTERS
from hfclib.paper.tables import decimals, in_words
from hfclib.paper.verdicts import FACTOR, FAILED_HERE, MARGIN, NO_VERDICT
from hfclib.runs.collect import Runs

CLAIMS: tuple[Claim, ...] = tuple(claim for chapter in CHAPTERS.values() for claim in chapter.claims)
COLUMNS = ["claim", "version", "tested", "verdict", "size", "ours", "seeds", "units", "paper", "first", "first verdict"]
COLUMNS += ["cause", "counted", "main", "section", "chapter", "topic", "relation", "bound"]
ALPHA = 0.05  # of a family of directions
NUMBERS = ["mean", "low", "high", "published", "p"]
# What an interval covers, by a claim's units.
_UNITS = {
    "seeds": "over the seeds and, where it is about accuracies, the draw of the images",
    "images": "over test images, of one network",
    "seeds and images": "over seeds and test images",
    "recipes": "over recipes, by bootstrap",
}
PUBLISHED = "published runs"  # a column of `notebook_scoreboard`


def scoreboard(evidence: Mapping[str, pd.DataFrame | None], *, preset: str = "laptop") -> pd.DataFrame:
    """All claims about the given chapters and preset as a table to read.

    Args:
        evidence: by chapter, the table on which its claims are judged (`Chapter.evidence`); None without a stored run.
        preset: whose networks are in the evidence. Claims about "narrow" and "paper" are judged on these; the others
            on any other preset, such as one of yours.
    Returns:
        Index the claim's id; COLUMNS. "tested" says what the rule compares: a direction, a size or a bound; "verdict"
        what came of it from all seeds, and "size" whether the paper's value lies in the interval. "ours" is
        "mean [low, high]" over "seeds" networks, or recipes where "units" says so, the mean alone for a single one.
        "first" and "first verdict" are those of the number of seeds that was fixed with the rule, where there are more.
        "cause" is the departure that a failure may come from; "units", "main", "topic", "relation" and "bound" are the
        claim's. A claim whose runs are missing has the verdict "run missing". "paper" is in brackets where the paper
        measured otherwise. Last come NUMBERS, the same as numbers, NaN where there is none that can be compared; p is
        the p-value of 0 (`Estimate`).
    """
    rows = {}
    claims = [claim for claim in CLAIMS if claim.chapter in evidence and _is_about(claim, preset)]
    estimates = {}
    for name, table in evidence.items():
        if table is not None and len(table):
            estimates |= CHAPTERS[name].estimates(table, [claim for claim in claims if claim.chapter == name])
    for claim in claims:
        row = {
            "claim": claim.text,
            "version": claim.version + _merged(claim.id),
            "tested": _tested(claim),
            "verdict": "run missing",
            "size": "not known",
            "ours": "not measured",
            "seeds": 0,
            "units": claim.units,
            "paper": _paper(claim),
            "first": "\u2013",
            "first verdict": "\u2013",
            "cause": "",
            "counted": claim.counted,
            "main": claim.main,
            "section": claim.section,
            "chapter": claim.chapter,
            "topic": claim.topic,
            "relation": claim.relation,
            "bound": claim.bound,
            "published": np.nan if claim.paper is None or claim.distance or claim.paper_differs else claim.paper,
        }
        if claim.id in estimates:
            first, estimate = estimates[claim.id]
            row |= {"verdict": claim.judge(estimate), "size": claim.size(estimate)}
            row |= {"ours": in_words(estimate, claim.paper or 0.0), "seeds": estimate.seeds, "p": estimate.p}
            row |= {"mean": estimate.mean, "low": estimate.low, "high": estimate.high}
            if first is not estimate:
                row |= {"first": in_words(first), "first verdict": claim.judge(first)}
            row["cause"] = claim.departure if row["verdict"] == FAILED_HERE else ""
        rows[claim.id] = row
    board = pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS + NUMBERS).rename_axis("id")
    return board.astype(dict.fromkeys(NUMBERS, float) | {"counted": bool, "main": bool})


def _merged(name: str) -> str:
    """That a claim's row was merged from rows with rules of their own, in words; "" where it was not."""
    count = len(merged_into(name))
    return f"; merged from {count} rules" if count > 1 else ""


def _is_about(claim: Claim, preset: str) -> bool:
    own = {other.preset for other in CLAIMS} - {"laptop"}
    return claim.preset == preset if preset in own else claim.preset == "laptop"


def readable(board: pd.DataFrame) -> pd.DataFrame:
    """The columns of a `scoreboard` that a chapter shows, with the claim and its verdict in front."""
    beside = [PUBLISHED] if PUBLISHED in board else []
    shown = board.set_index("claim")[["verdict", "size", "ours", "seeds", *beside, "paper", "tested", "version"]]
    units = {_UNITS[unit] for unit in board["units"]} or {_UNITS["seeds"]}
    counted = "recipes" if set(board["units"]) == {"recipes"} else "seeds"
    shown = shown.rename(columns={"seeds": counted})
    shown.attrs["caption"] = (
        f"The claims of this chapter: our statistic with its 95 % interval {' or '.join(sorted(units))}, "
        "and the paper's value, in brackets where it was measured otherwise; the size is compatible where the interval "
        "holds it."
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
    if claim.distance:
        return "\u2013"
    if claim.paper is None:
        return "not in the paper" if claim.section == "ours" else "not available to us"
    return f"({decimals(claim.paper)})" if claim.paper_differs else decimals(claim.paper)


def published_scoreboard(chapters: Collection[str] = tuple(CHAPTERS), preset: str = "laptop") -> pd.DataFrame:
    """The `scoreboard` of chapters from all published runs of a preset, at "laptop" those of "narrow" and "paper" too.

    Nothing is trained or attacked, and your own folder is not read.
    """
    boards = []
    for about in ("laptop", "narrow", "paper") if preset == "laptop" else (preset,):
        tested = {claim.chapter for claim in CLAIMS if _is_about(claim, about)}
        evidence = {name: CHAPTERS[name].published(about) for name in chapters if name in tested}
        boards.append(scoreboard(evidence, preset=about))
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
        "laptop", or of "narrow" or "paper" where the claim is about those.
    """
    about = CHAPTERS[chapter]
    if not about.is_own(preset, runs):
        return published_scoreboard([chapter], preset)
    board = scoreboard({chapter: about.evidence(runs) if evidence is None else evidence}, preset=preset)
    published = published_scoreboard([chapter]).loc[board.index]
    return board.assign(**{PUBLISHED: published["verdict"] + ": " + published["ours"]})


def surviving(board: pd.DataFrame) -> tuple[int, int, int]:
    """How many reproduced directions there are, and how many of them are left when all directions are tested together.

    Returns:
        Reproduced directions; those that survive Holm's correction at .05; those that survive Benjamini and Hochberg's.
        All directions with a verdict that are counted take part.
    Source: Holm, 1979; Benjamini and Hochberg, 1995.
    """
    from scipy.stats import false_discovery_control  # here: half a second that every notebook would wait for

    judged = board["p"].notna() & ~board["verdict"].str.endswith(NO_VERDICT)
    rows = board[(board["relation"] == "exceeds") & board["counted"] & judged]
    p = rows["p"].to_numpy()
    reproduced = (rows["verdict"] == "reproduced").to_numpy()
    order = np.argsort(p)
    holm = np.empty(len(p))
    holm[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    levels = holm, false_discovery_control(p) if len(p) else p
    return int(reproduced.sum()), *(int(np.sum(reproduced & (level <= ALPHA))) for level in levels)
