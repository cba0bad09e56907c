"""The scoreboard's page: the main claim of each chapter, and all claims by topic with their numbers in place."""

import re
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from book import board as page
from hfclib.paper.record import record_table, rules
from hfclib.paper.registry import CHAPTERS
from hfclib.paper.scoreboard import COLUMNS, NUMBERS
from hfclib.paper.verdicts import MARGIN, Verdict

EMPTY = dict.fromkeys(COLUMNS, "-") | dict.fromkeys(NUMBERS, np.nan) | {"seeds": 0, "counted": True, "cause": ""}
EMPTY |= {"version": "v", "tested": "direction: above 0", "first": "\u2013", "section": "s", "chapter": "fig4"}
EMPTY |= {"main": False, "topic": "", "size": "not known", "relation": "exceeds", "bound": 0.0}
ROWS = {
    "fig4-a": EMPTY
    | {"claim": "A <b>", "verdict": "reproduced", "seeds": 3, "mean": 0.3, "low": 0.1, "high": 0.5, "published": 0.5}
    | {"first": ".2 [.1, .3]", "first verdict": "inconclusive", "counted": False, "ours": ".3 [.1, .5]", "paper": ".5"}
    | {"topic": "A & B", "main": True, "size": "compatible"},
    "fig4-b": EMPTY
    | {"claim": "B", "verdict": "one network", "seeds": 1, "mean": 0.2, "low": -np.inf, "high": np.inf}
    | {"cause": "width & schedule", "topic": "A & B", "section": "ours"},
    "fig4-d": EMPTY
    | {"claim": "D", "verdict": "reproduced", "published": 5.0, "mean": 2.0, "low": 1.0, "high": 3.0, "seeds": 3}
    | {"p": 0.001, "size": "excluded", "units": "recipes"},
    "fig1-c": EMPTY | {"claim": "C", "tested": "bound", "verdict": "run missing", "chapter": "fig1", "main": True},
}


@pytest.fixture
def board():
    """Four claims, of which two have one topic."""
    return pd.DataFrame.from_dict(ROWS, orient="index", columns=COLUMNS + NUMBERS)


def test_the_page_opens_with_sizes_and_with_the_papers_claims_and_ours_apart(board):
    text = page.opening(board).data
    assert "**The paper's number lies in our interval in 0 of the 1 rows**" in text  # the first row is not counted
    assert "Of the 1 of these that are reproduced, 0 fit" in text
    assert "The 2 rows on the paper's claims: 1 reproduced, 1 run missing. Our 1, such as controls: 1 one" in text
    assert "in 1 of the 2 rows** where the two can be compared" in page.opening(board.assign(counted=True)).data
    board.loc["fig4-d", ["section", "published"]] = "Fig. 5", 3.02
    assert "in 0 of the 1 rows** where the two can be compared (in 1 if" in page.opening(board).data
    assert "Of the 1 reproduced rows that test a direction, 1 survive Holm's" in page.multiplicity(board).data


def test_the_main_claim_of_each_chapter_has_a_row_with_direction_and_size(board):
    html = page.main_claims(board).data
    HTMLParser().feed(html)
    assert re.findall(r'href="(#[^"]+)"', html) == ["#fig4-a", "#fig1-c"]
    assert re.findall(r'data-(verdict|size)="([^"]+)"', html) == [
        ("verdict", "reproduced"),
        ("size", "compatible"),
        ("verdict", "run missing"),
        ("size", "not known"),
    ]
    assert '<a href="../notebooks/fig4.html">heuristics</a>' in html
    assert html.count("A &lt;b&gt;") == 1


def test_claims_are_grouped_by_question_and_topic_and_their_numbers_stand_in_front(board):
    html = page.topics(board).data
    HTMLParser().feed(html)
    assert re.findall(r'<h3 id="board-(\w+)"', html) == ["fig1", "fig4"]
    assert re.findall(r'<div class="hfc-claim" id="([\w-]+)"', html) == ["fig1-c", "fig4-a", "fig4-b", "fig4-d"]
    assert re.findall(r'class="hfc-text">([^<]+) <', html) == ["C", "A &amp; B", "D"]
    assert 'value="one network"> one network (1)' in html
    folded = html[html.index("A &amp; B") : html.index('id="fig4-a"')]
    for part in (
        "2 claims",
        ">A &lt;b&gt;<small>v</small><small>.3 [.1, .5]; paper .5; not counted</small>",
        ">B<small>v</small><small>-</small>",
    ):
        assert part in folded
    assert folded.count('class="interval"') == 1  # a single network has none
    assert folded.count('class="paper"') == 1
    assert html.count("<dd>inconclusive, .2 [.1, .3]</dd>") == 1  # with the seeds that were fixed with the rule
    assert html.count("<dd>width &amp; schedule</dd>") == 1
    assert html.count("<dt>not counted</dt>") == 1
    assert html.count("<dt>recipes</dt><dd>3</dd>") == 1
    assert "<small>2 reproduced, 1 one network</small></summary>" in html
    assert html.count('<p><a href="../notebooks/fig4.html">The chapter</a></p>') == 1


def test_each_topic_has_a_scale_of_its_own_that_holds_its_numbers(board):
    for rows, ends in (
        (board.loc[["fig4-a", "fig4-b"]], (0, 0.5)),
        (board.loc[["fig4-d"]], (0, 5)),
        (board.loc[["fig1-c"]], (0, 0.01)),
    ):
        scale = page.Scale.of(rows)
        assert (scale.ticks[0], scale.ticks[-1]) == ends
        assert (scale.at(ends[0]), scale.at(ends[1])) == (page.MARGIN, page.WIDTH - page.MARGIN)
    assert page.WIDTH == 400
    assert ">.5</text>" in page.topics(board).data


def test_marks_stand_at_their_values(board):
    row = board.loc["fig4-a"]
    picture = page._picture(row, page.Scale((0.0, 1.0)))
    left, across = page.MARGIN, page.WIDTH - 2 * page.MARGIN
    assert f'cx="{left + 0.3 * across:.1f}"' in picture
    assert f'd="M{left + 0.5 * across:.1f} ' in picture
    assert f'x1="{left + 0.1 * across:.1f}" x2="{left + 0.5 * across:.1f}"' in picture


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
def test_the_edges_of_every_rule_stand_at_their_values(board, relation, bound, edges):
    scale = page.Scale((-1.0, 1.0))
    picture = page._picture(pd.Series(ROWS["fig4-a"] | {"relation": relation, "bound": bound}), scale)
    drawn = re.findall(r'<line x1="(\S+)" [^>]*class="edge"', picture)
    assert sorted(map(float, drawn)) == [float(f"{scale.at(edge):.1f}") for edge in edges]


def test_questions_and_topics_unfold_and_the_filter_leaves_one_verdict_and_no_empty_section(board, browser, tmp_path):
    css = (Path(page.__file__).parent / "_static/book.css").read_text()
    path = tmp_path / "board.html"
    path.write_text(f"<!DOCTYPE html><style>{css}</style><main>{page.topics(board).data}</main>")
    opened = browser.new_page(viewport={"width": 390, "height": 844})
    opened.goto(path.as_uri())
    sections, topics = opened.locator("section"), opened.locator(".hfc-topic")

    def visible(places):
        return [place for place in range(places.count()) if places.nth(place).is_visible()]

    lines, claims = opened.locator(".hfc-line:not(.hfc-head)"), opened.locator(".hfc-claim")
    assert (visible(sections), visible(topics)) == ([0, 1], [])
    opened.locator(".hfc-question > summary").nth(1).press("Enter")
    assert (visible(topics), visible(lines), visible(claims)) == ([1, 2], [1, 2, 3], [])
    topics.nth(1).locator("> summary").press("Enter")
    assert visible(claims) == [1, 2]
    opened.get_by_label("one network (1)").check()
    assert (visible(sections), visible(topics), visible(lines), visible(claims)) == ([1], [1], [2], [2])
    opened.get_by_label("run missing (1)").check()
    assert (visible(sections), visible(topics), visible(lines), visible(claims)) == ([0], [0], [0], [])
    opened.get_by_label("all (4, 1 not counted)").check()
    assert visible(lines) == [0, 1, 2, 3]
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390
    opened.reload()
    opened.get_by_label("one network (1)").check()
    assert (visible(sections), visible(lines)) == ([1], [2])  # its question is unfolded
    opened.goto("about:blank")
    opened.goto(f"{path.as_uri()}#fig4-d")  # a link to a claim unfolds its question and its topic
    assert 3 in visible(claims)
    opened.close()


def test_the_page_has_few_words_beside_its_rows(board):
    text = (Path(page.__file__).parent / "scoreboard.md").read_text().split("---\n", 2)[2]
    prose = re.sub(r"\]\([^)]*\)", "", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    verdicts = (*get_args(Verdict), "run missing")
    every = [
        board.iloc[[2]].assign(verdict=verdict, section=section) for verdict in verdicts for section in ("s", "ours")
    ]
    made = page.opening(pd.concat(every)).data + page.multiplicity(pd.concat(every)).data
    assert len(re.findall(r"\w[\w'.,-]*", made)) > 100
    assert len(re.findall(r"\w[\w'.,-]*", prose + made)) <= 300


def test_the_record_has_every_rule_once_under_the_question_of_its_chapter(board):
    html = page.record(record_table(board)).data
    HTMLParser().feed(html)
    parts = {re.search("<h3[^>]*>(.*?)</h3>", part)[1]: part for part in html.split("<details")[1:]}
    assert {escape(chapter.question) for chapter in CHAPTERS.values()} >= set(parts)
    for rule in rules():
        question = escape(CHAPTERS[rule["id"].partition("-")[0]].question)
        assert parts[question].count(f"<td>{rule['id']}</td>") == html.count(f"<td>{rule['id']}</td>") == 1
