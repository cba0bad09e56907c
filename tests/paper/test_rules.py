"""The record of rules agrees with the claims and with git, and nothing is deleted from it."""

import datetime
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from hfclib.paper.record import in_force, merged_into, record_table, rules
from hfclib.paper.registry import CHAPTERS
from hfclib.paper.scoreboard import CLAIMS, scoreboard

ROOT = Path(__file__).parents[2]
RECORD = "hfclib/paper/rules.yaml"
ALWAYS = {"id": str, "rule": str, "committed": datetime.date, "commit": str | None, "known": str}
ENDED = {
    "superseded": datetime.date,
    "by_commit": str | None,
    "replaced_by": list,
    "why": str,
    "last_verdict": str,
    "last_value": str | None,
}
OPTIONAL = {"note": str, "reinstated": datetime.date}
KEPT = ("rule", "committed", "commit", "known", *ENDED.keys() - {"replaced_by"})  # a version may get another id
VERDICTS = {
    "not reproduced in our set-up",
    *("reproduced", "contradicted", "not reproduced here", "not comparable", "inconclusive"),
    *("one network", "two networks", "run missing"),
}


def lost(before: list[dict], now: list[dict]) -> list[str]:
    """The ids of which the record no longer has a version with the same rule, dates and last verdict."""
    versions: dict[str, list[dict]] = {}
    for rule in now:
        versions.setdefault(rule["id"].partition("@")[0], []).append(rule)
    return [
        rule["id"]
        for rule in before
        # A commit cannot know its own hash, which is filled in later.
        if not any(
            all(rule.get(name) in (None, one.get(name)) for name in KEPT)
            for one in versions.get(rule["id"].partition("@")[0], ())
        )
    ]


def git(*words: str) -> str:
    found = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=True)
    return found.stdout.strip()


@pytest.fixture
def history():
    """The repository's whole history, or the reason why there is none."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("there is no git repository")
    if git("rev-parse", "--is-shallow-repository") == "true":
        (pytest.fail if os.environ.get("CI") else pytest.skip)("the clone is shallow")


def test_each_claim_has_one_rule_in_force():
    assert sorted(rule["id"] for rule in rules() if in_force(rule)) == sorted(claim.id for claim in CLAIMS)


def test_ids_are_unique_and_in_the_order_of_their_commits():
    assert len({rule["id"] for rule in rules()}) == len(rules())
    assert [rule["committed"] for rule in rules()] == sorted(rule["committed"] for rule in rules())


def test_entries_have_all_fields():
    for rule in rules():
        expected = ALWAYS | (ENDED if ENDED.keys() & rule.keys() else {})
        assert expected.keys() == rule.keys() - OPTIONAL.keys(), rule["id"]
        for name, value in rule.items():
            assert isinstance(value, (expected | OPTIONAL)[name]), (rule["id"], name)
        assert rule["id"].partition("-")[0] in CHAPTERS


def test_what_is_superseded_names_its_last_verdict_and_later_rules():
    committed = {rule["id"]: rule["committed"] for rule in rules()}
    ended = [rule for rule in rules() if "superseded" in rule]
    assert ended
    for rule in ended:
        assert rule["last_verdict"] in VERDICTS, rule["id"]
        assert (rule["last_value"] is None) == (rule["last_verdict"] == "run missing"), rule["id"]
        assert committed.keys() >= set(rule["replaced_by"]) - {rule["id"]}, rule["id"]
        assert rule["id"] not in rule["replaced_by"]
        assert rule["superseded"] >= rule["committed"]


def test_versions_lead_to_the_rule_in_force():
    successors = {rule["id"]: rule.get("replaced_by") for rule in rules()}
    for start in (name for name in successors if "@" in name):
        name, number = start.split("@")
        following = [f"{name}@{int(number) + 1}", name]
        assert successors[start] in [[one] for one in following if one in successors], start


def test_commits_are_in_the_history_with_their_dates(history):
    dates = {line[:7]: line[41:] for line in git("log", "--format=%H %ad", "--date=short").splitlines()}
    named = [(rule["commit"], rule["committed"]) for rule in rules()]
    named += [(rule["by_commit"], rule["superseded"]) for rule in rules() if "superseded" in rule]
    for commit, date in named:
        assert commit is None or dates.get(commit) == date.isoformat(), commit


def test_a_rule_ends_in_a_commit_after_its_first(history):
    pairs = {(rule["commit"], rule["by_commit"]) for rule in rules() if "superseded" in rule}
    for first, last in pairs:
        if first and last:
            assert git("merge-base", first, last) == git("rev-parse", first), (first, last)


def test_nothing_has_changed_since_it_was_committed(history):
    for commit in git("log", "--format=%h", "--", RECORD).split():
        assert not lost(yaml.load(git("show", f"{commit}:{RECORD}"), yaml.CSafeLoader), rules()), commit


def test_rows_say_how_many_rules_were_merged_into_them():
    assert merged_into("fig4-dropout-H4-H8") == ("fig4-dropout-H4-as-published", "fig4-dropout-H8-as-published")
    board = scoreboard({"fig4": None, "fig1": None})
    merged = board.index[board["version"].str.contains("merged from")]
    assert board.at["fig4-dropout-H4-H8", "version"].endswith("; merged from 2 rules")
    assert board.at["fig1-lfc-exceeds-hfc", "version"].endswith("; merged from 4 rules")
    assert set(merged) == {
        "fig1-lfc-exceeds-hfc",
        "fig1-grows",
        "fig1-hfc",
        "fig4-mixup-controlled",
        "fig4-dropout-H4-H8",
    }


def test_the_table_of_rules_has_the_verdict_then_and_now():
    table = record_table(scoreboard({"fig4": None, "fig1": None}))
    assert len(table) == len(rules())
    stretched = table.loc["fig1-hfc-4"]
    assert stretched["verdict then"].startswith("contradicted .740 [.731, .748]; until 2026-11-26 (35678de): ")
    assert stretched["verdict then"].endswith("; in force again since 2026-11-30")
    assert stretched["committed"] == "2026-11-25 (d09e76d); known: hfc4: seed 0"
    assert stretched["now"] == "run missing not measured"
    assert table.at["fig4-dropout-H4-as-published", "now"] == "run missing not measured"
    assert table.at["batchnorm-help-H4", "now"] == "no row"


OLD = {"id": "a", "rule": "exceeds 0", "committed": 1, "commit": "c", "known": "none"}
END = {
    "superseded": 2,
    "by_commit": "d",
    "replaced_by": ["b"],
    "why": "merged",
    "last_verdict": "reproduced",
    "last_value": ".1",
}


@pytest.mark.parametrize(
    "now",
    [[OLD], [OLD | END, OLD | {"id": "b"}], [OLD | {"note": "renamed"}], [OLD | {"id": "a@1"}, OLD | {"rule": "new"}]],
)
def test_a_rule_may_be_superseded_and_others_may_join(now):
    assert not lost([OLD], now)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (OLD, []),
        (OLD, [OLD | {"id": "b"}]),
        *((OLD, [OLD | {name: "other"}]) for name in ("rule", "committed", "commit", "known")),
        (OLD | END, [OLD]),
        (OLD | END, [OLD | END | {"last_verdict": "inconclusive"}]),
    ],
)
def test_a_deleted_or_reworded_rule_is_found(before, now):
    assert lost([before], now) == ["a"]
