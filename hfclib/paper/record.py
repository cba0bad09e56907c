"""The record of rules, read from `rules.yaml`: when each was committed, what was known, and what became of it."""

from functools import cache
from pathlib import Path

import pandas as pd
import yaml

from hfclib.paper.tables import text_table

_FILE = Path(__file__).with_name("rules.yaml")


@cache
def rules() -> tuple[dict, ...]:
    """Every version of every rule, in the order of the first commit; the file's head explains the fields."""
    return tuple(yaml.load(_FILE.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def in_force(rule: dict) -> bool:
    """Whether a rule decides a verdict today."""
    return "superseded" not in rule or "reinstated" in rule


@cache
def merged_into(name: str) -> tuple[str, ...]:
    """The ids of the rules that were merged into the row of a claim; a version of the row itself is none of them."""
    own = {name} | {rule["id"] for rule in rules() if rule["id"].partition("@")[0] == name}
    ended = [rule for rule in rules() if own & set(rule.get("replaced_by", ()))]
    return tuple(rule["id"] for rule in ended if rule["id"] not in own)


def record_table(board: pd.DataFrame) -> pd.DataFrame:
    """Every rule with what was known when it was committed, its verdict then, and today's.

    Args:
        board: the `published_scoreboard`.
    Returns:
        Index the rule's id; columns rule, committed (date, commit and what was known), verdict then (the last under a
        rule that is superseded, with date, commit and reason), now (the verdict of its row, or of the rows that took
        its place).
    """
    rows = {}
    for rule in rules():
        then = ""
        if "superseded" in rule:
            then = " ".join(filter(None, (rule["last_verdict"], rule["last_value"])))
            then += f"; until {rule['superseded']} ({rule['by_commit'] or 'this commit'}): {rule['why']}"
        if "reinstated" in rule:
            then += f"; in force again since {rule['reinstated']}"
        rows[rule["id"]] = {
            "rule": rule["rule"],
            "committed": f"{rule['committed']} ({rule['commit'] or 'this commit'}); known: {rule['known']}",
            "verdict then": then,
            "now": _now(rule, board),
        }
    return text_table(rows, ["id"])


def _now(rule: dict, board: pd.DataFrame) -> str:
    names = [rule["id"]] if in_force(rule) else rule["replaced_by"]
    rows = [name for name in names if name in board.index]
    told = [f"{board.at[name, 'verdict']} {board.at[name, 'ours']}" for name in rows]
    later = [f"see {name}" for name in names if name not in board.index]
    return "; ".join(told + later) or "no row"
