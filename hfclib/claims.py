"""The paper's claims, each with a statistic, a rule written before the numbers, and a verdict.

The rule. A claim's statistic is a difference of accuracies, one value a seed; its interval is the 95 % Student-t
interval over seeds.

- "exceeds": reproduced if the whole interval is above 0, contradicted if it is all at or below 0.
- "does not differ": reproduced if the whole interval is within MARGIN of 0, contradicted if it is all outside.
- Otherwise, and always with a single seed: inconclusive.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from hfclib import published
from hfclib.tables import CONDITIONS, Version, decimals, difference, interval, with_interval

# Two accuracies closer than this count as equal: somewhat more than the .03 to which the paper's figure can be read.
MARGIN = 0.05

Verdict = Literal["reproduced", "contradicted", "inconclusive"]


@dataclass(frozen=True)
class Claim:
    """A claim about Fig. 4: how a heuristic's accuracy on a band compares with vanilla's.

    Attributes:
        id: unique, such as "fig4-batchnorm-H4-as-published".
        figure: the book's figure.
        section: where the paper makes the claim.
        text: the claim in our words.
        version: "as published" (feed "max", batch statistics) or "controlled" (feed "mean", running statistics).
        panel: the heuristic compared with vanilla.
        measure: the band and radius, such as "H4".
        relation: "exceeds" or "does not differ".
    """

    id: str
    figure: str
    section: str
    text: str
    version: Version
    panel: str
    measure: str
    relation: Literal["exceeds", "does not differ"]

    def published_value(self) -> float | None:
        """The same difference in the paper's figure; None where the paper has no value."""
        return published.fig4_difference(self.panel, self.measure)


@dataclass(frozen=True)
class Result:
    """What a claim came to here: mean, interval (95 %), number of seeds and verdict."""

    claim: Claim
    mean: float
    low: float
    high: float
    seeds: int
    verdict: Verdict


def verdict(relation: str, low: float, high: float) -> Verdict:
    """Apply the module's rule to an interval.

    Raises:
        ValueError: another relation.
    """
    if relation == "exceeds":
        return "reproduced" if low > 0 else "contradicted" if high <= 0 else "inconclusive"
    if relation == "does not differ":
        inside, outside = low >= -MARGIN and high <= MARGIN, low > MARGIN or high < -MARGIN
        return "reproduced" if inside else "contradicted" if outside else "inconclusive"
    raise ValueError(f"expected relation, exceeds or does not differ, got {relation!r}")


def _fig4_claims() -> Iterator[Claim]:
    sentences = {
        "batchnorm": "BatchNorm makes the network more accurate on the HFC at r = {r} than vanilla training does",
        "mixup": "Mix-up makes the network more accurate on the HFC at r = {r} than vanilla training does",
        "dropout": "Dropout does not change the accuracy on the HFC at r = {r}",
    }
    for version in CONDITIONS:
        for panel, sentence in sentences.items():
            for radius in (4, 8):
                yield Claim(
                    id=f"fig4-{panel}-H{radius}-{version.replace(' ', '-')}",
                    figure="fig4",
                    section="section 5.2, Fig. 5",
                    text=sentence.format(r=radius),
                    version=version,
                    panel=panel,
                    measure=f"H{radius}",
                    relation="does not differ" if panel == "dropout" else "exceeds",
                )


CLAIMS: tuple[Claim, ...] = tuple(_fig4_claims())


def judge(claim: Claim, final: pd.DataFrame) -> Result:
    """Measure a claim on the final accuracies that `tables.gather` returns.

    Raises:
        ValueError: no seed has both networks.
    """
    values = difference(final, claim.panel, claim.measure, *CONDITIONS[claim.version])
    if values.empty:
        raise ValueError(f"claim {claim.id}: no seed has runs of both {claim.panel} and vanilla")
    mean, low, high = interval(values)
    return Result(claim, mean, low, high, len(values), verdict(claim.relation, low, high))


def scoreboard(final: pd.DataFrame, version: Version | None = None) -> pd.DataFrame:
    """All claims, or those of one version, as a reader's table.

    Returns:
        Index the claim's id; columns claim, version, section, paper, ours ("mean [low, high]"), seeds, verdict, figure.
    """
    rows = []
    for claim in CLAIMS:
        if version in (None, claim.version):
            result = judge(claim, final)
            paper = claim.published_value()
            rows.append({"id": claim.id, "claim": claim.text, "version": claim.version, "section": claim.section,
                         "paper": "not published" if paper is None else decimals(paper, 2),
                         "ours": with_interval(result.mean, result.low, result.high), "seeds": result.seeds,
                         "verdict": result.verdict, "figure": claim.figure})  # fmt: skip
    return pd.DataFrame(rows).set_index("id")
