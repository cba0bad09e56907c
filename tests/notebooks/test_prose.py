"""A number that is typed in a notebook's text is one that the notebook shows."""

import html
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from book.chapters import main_text, words
from tests.notebooks.test_notebooks import NOTEBOOKS

BOARD = pd.read_csv(Path(__file__).parents[1] / "paper" / "scoreboard.csv", index_col="id", dtype=str)
INTERVAL = re.compile(r"(-?\d*\.\d+) \[(-?\d*\.\d+), (-?\d*\.\d+)\]")

# Settings, and numbers of networks that the notebook speaks of without showing them.
ELSEWHERE = {
    "detection": {".39", ".95"},  # a point of the figure, see test_detection.py; the largest overlap of COCO's mAP
    "fig4": {".66"},  # a trial
    "training": {".001", ".06"},  # learning rates; millions of parameters
}


def shown_numbers(cells: list[dict]) -> set[float]:
    data = [part for cell in cells for output in cell.get("outputs", ()) for part in (output, output.get("data", {}))]
    texts = [
        "".join(part.get(kind, "")) for part in data for kind in ("text", "text/plain", "text/html", "text/markdown")
    ]
    words = re.sub(r"<svg.*?</svg>|<[^>]+>", " ", html.unescape(" ".join(texts)), flags=re.DOTALL)
    return {float(number) for number in re.findall(r"(?<!\w)\d*\.\d+", words)}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_decimals_in_the_text_stand_in_an_output_or_round_one_that_does(notebook: Path):
    cells = json.loads(notebook.read_text())["cells"]
    shown = shown_numbers([cell for cell in cells if cell["cell_type"] == "code"])
    prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    typed = set(re.findall(r"(?<![\w.,])\.\d+(?!\w)", re.sub(r"`[^`]*`", "", prose)))
    strange = {
        number
        for number in typed - ELSEWHERE.get(notebook.stem, set())
        if not any(abs(float(number) - one) <= 0.5 * 10 ** -(len(number) - 1) + 1e-9 for one in shown)
    }
    assert not strange


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_chapter_is_short(notebook: Path):
    """600 to 900 words, at most three tables and three bars of code, in front of the appendix."""
    code = [cell for cell in main_text(notebook) if cell["cell_type"] == "code"]
    tags = [set(cell["metadata"].get("tags", ())) for cell in code]
    tables = sum("<table" in json.dumps(cell["outputs"]) for cell in code)
    bars = sum(not own & {"remove-input", "remove-cell"} for own in tags)
    assert 600 <= len(words(notebook)) <= 900
    assert tables <= 3
    assert bars <= 3


# Another measurement than the row of the scoreboard to which it is close: here BatchNorm uses the test batch.
CLOSE = {("batchnorm", "fig4-batchnorm-H4-controlled")}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_an_interval_in_the_answer_that_is_close_to_one_of_the_scoreboard_is_the_same(notebook: Path):
    """README, landing page and scoreboard have theirs from there too: one number that two of them tell is equal."""
    answer = "".join(json.loads(notebook.read_text())["cells"][0]["source"])
    known = {name: INTERVAL.fullmatch(text.replace("\u00a0", " ")) for name, text in BOARD["ours"].items()}
    known = {name: match.groups() for name, match in known.items() if match}
    different = [
        (name, told, own)
        for told in INTERVAL.findall(answer)
        for name, own in known.items()
        if told not in known.values() and all(abs(float(a) - float(b)) <= 0.005 for a, b in zip(told, own, strict=True))
    ]
    assert [one for one in different if (notebook.stem, one[0]) not in CLOSE] == []


def test_the_papers_value_beside_an_interval_of_an_answer_is_the_scoreboards():
    answers = "".join("".join(json.loads(notebook.read_text())["cells"][0]["source"]) for notebook in NOTEBOOKS)
    beside = re.findall(rf"({INTERVAL.pattern.replace('(', '(?:')}) \(paper (\.\d+)\)", answers)
    ours = BOARD["ours"].str.replace("\u00a0", " ")
    assert beside
    for told, paper in beside:
        assert float(paper) in BOARD.loc[ours == told, "paper"].astype(float).tolist(), (told, paper)
