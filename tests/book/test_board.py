"""The scoreboard's page: a row per claim, grouped, with its numbers in place."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from book import board as page
from hfclib.paper import scoreboard
from hfclib.paper.claims import Claim
from hfclib.paper.registry import CHAPTERS
from hfclib.paper.scoreboard import COLUMNS, NUMBERS
from hfclib.paper.verdicts import MARGIN

EMPTY = dict.fromkeys(COLUMNS, "-") | dict.fromkeys(NUMBERS, np.nan) | {"seeds": 0, "counted": True, "cause": ""}
EMPTY |= {"version": "v", "tested": "direction: above 0", "first": "\u2013", "section": "s", "figure": "fig4"}
ROWS = {
    "fig4-a": EMPTY
    | {"claim": "A <b>", "verdict": "reproduced", "seeds": 3, "mean": 0.3, "low": 0.1, "high": 0.5, "published": 0.5}
    | {"first": ".2 [.1, .3]", "first verdict": "inconclusive", "counted": False},
    "fig4-b": EMPTY
    | {"claim": "B", "verdict": "one network", "seeds": 1, "mean": 0, "low": -np.inf, "high": np.inf}
    | {"cause": "width & schedule"},
    "fig1-c": EMPTY | {"claim": "C", "tested": "bound", "verdict": "run missing", "figure": "fig1"},
}


def test_a_row_per_claim_grouped_by_question():
    frame = pd.DataFrame.from_dict(ROWS, orient="index", columns=COLUMNS + NUMBERS)
    html = page.forest(frame).data
    HTMLParser().feed(html)
    assert re.findall(r'<details class="hfc-claim" id="([\w-]+)"', html) == ["fig1-c", "fig4-a", "fig4-b"]
    assert re.findall(r'<h3 id="board-(\w+)"', html) == ["fig1", "fig4"]
    assert "A &lt;b&gt;" in html
    assert 'value="one network"> one network (1)' in html
    assert html.count('class="interval"') == 1  # a single network has none
    assert html.count('class="paper"') == 1
    assert html.count("<dd>inconclusive, .2 [.1, .3]</dd>") == 1  # with the seeds that were fixed with the rule
    assert html.count("<dd>width &amp; schedule</dd>") == 1
    assert html.count("<dt>not counted</dt>") == 1


@pytest.fixture
def board(monkeypatch):
    """Three claims, of which two have one topic."""
    monkeypatch.setattr(page, "TOPICS", {"fig4-.*": "A & B"})
    return pd.DataFrame.from_dict(ROWS, orient="index", columns=COLUMNS + NUMBERS)


def test_claims_of_a_topic_share_a_row(board):
    html = page.forest(board).data
    HTMLParser().feed(html)
    topic = html[html.index("hfc-topic") :]
    assert html.count("hfc-topic") == 1
    assert re.findall(r'<details class="hfc-claim" id="([\w-]+)"', topic) == ["fig4-a", "fig4-b"]
    folded = topic[: topic.index("</summary>")]
    for part in ("A &amp; B", "2 claims", "reproduced (1)", "one network (1)"):
        assert part in folded
    assert len(set(re.findall(r'<circle cx="\S+" cy="(\S+)"', folded))) == 2  # one line per claim
    assert page.topic("fig1-c", "C") == "C"  # without a pattern the claim's own text


def test_a_row_unfolds_and_the_filter_shows_one_verdict(board, browser, tmp_path):
    css = (Path(page.__file__).parent / "_static/book.css").read_text()
    path = tmp_path / "board.html"
    path.write_text(f"<!DOCTYPE html><style>{css}</style><main>{page.forest(board).data}</main>")
    opened = browser.new_page()
    opened.goto(path.as_uri())
    topic, claims = opened.locator(".hfc-topic"), ["fig4-a", "fig4-b", "fig1-c"]

    def visible():
        return [name for name in claims if opened.locator(f"#{name} > summary").is_visible()]

    assert visible() == ["fig1-c"]
    topic.locator("> summary").press("Enter")
    assert visible() == claims
    opened.locator("#fig4-a > summary").click()
    assert opened.locator("#fig4-a dl").is_visible()
    opened.get_by_label("one network (1)").check()
    assert visible() == ["fig4-b"]
    opened.get_by_label("run missing (1)").check()
    assert visible() == ["fig1-c"]
    assert not topic.is_visible()
    opened.get_by_label("all (3)").check()
    assert visible() == claims
    topic.locator("> summary").click()
    assert visible() == ["fig1-c"]
    opened.goto(f"{path.as_uri()}#fig4-b")  # a link to a claim unfolds its topic
    assert visible() == claims
    opened.close()


def test_marks_stand_at_their_values():
    row = pd.DataFrame.from_dict(ROWS, orient="index", columns=COLUMNS + NUMBERS).loc["fig4-a"]
    picture = page._picture(row)
    scale = (page.WIDTH - 16) / (page.HIGH - page.LOW)
    dot, diamond = 8 + (0.3 - page.LOW) * scale, 8 + (0.5 - page.LOW) * scale
    assert f'cx="{dot:.1f}"' in picture
    assert f'd="M{diamond:.1f} ' in picture
    beyond = page._picture(row.replace({0.3: 7.0}))
    assert f'cx="{page.WIDTH - 8:.1f}"' in beyond


@pytest.mark.parametrize(
    ("relation", "bound", "edges"),
    [
        ("exceeds", 0.0, []),
        ("does not differ", 0.0, [-MARGIN, MARGIN]),
        ("at most", -0.2, [-0.2]),
        ("at least", 1.0, [1.0]),
        ("about", 0.06, [0.03, 0.12]),
    ],
)
def test_the_edges_of_every_rule_stand_at_their_values(relation, bound, edges):
    place = {"id": "fig4-a", "chapter": "fig4", "section": "section 1", "text": "text", "version": "version"}
    claim = Claim(**place, contrast="vanilla.test", relation=relation, bound=bound)
    row = pd.DataFrame.from_dict(ROWS, orient="index", columns=COLUMNS + NUMBERS).loc["fig4-a"]
    picture = page._picture(row.replace({"direction: above 0": scoreboard._tested(claim)}))
    drawn = re.findall(r'<line x1="(\S+)" [^>]*class="edge"', picture)
    assert sorted(map(float, drawn)) == [float(f"{page.at(edge):.1f}") for edge in edges]


def test_every_chapter_with_claims_has_its_question():
    assert {name for name, chapter in CHAPTERS.items() if chapter.claims} <= set(page.QUESTIONS)


def test_every_topic_belongs_to_one_question():
    names = [claim.id for claim in scoreboard.CLAIMS]
    used = {}
    for claim in scoreboard.CLAIMS:
        used.setdefault(page.topic(claim.id, claim.text), set()).add(claim.chapter)
    assert set(page.TOPICS.values()) <= set(used)
    assert all(len(figures) == 1 for text, figures in used.items() if text in page.TOPICS.values())
    assert all(any(re.fullmatch(pattern, name) for name in names) for pattern in page.TOPICS)
    assert sum(len(figures) for figures in used.values()) <= 37  # rows to read before any is unfolded
