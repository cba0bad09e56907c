"""A chapter is a module, a notebook and a line of the registry: a toy one, in a copy of the checkout, with a claim."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from hfclib.paper.record import rules

ROOT = Path(__file__).parents[2]
COPIED = ("hfclib", "notebooks", "tests", "book", "benchmarks")  # and the files beside them
MODULE = '''"""A toy: does dropout at rate .2 change the accuracy on the HFC?"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pandas as pd
from pydantic import Field

from hfclib.charts import CHART, blank, drawn_in
from hfclib.paper.chapter import Chapter
from hfclib.paper.parameters import PaperRadius, Seeds, SeveralSeeds
from hfclib.paper.presets import Preset, fig4_recipes
from hfclib.paper.tables import gather, select
from hfclib.training.recipe import Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def toy_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """Vanilla of Fig. 4, and the same with a little dropout."""
    vanilla = fig4_recipes(preset)["vanilla"]
    return {"vanilla": vanilla, "toydrop": vanilla.with_(name=f"{preset}-toydrop", dropout=0.2)}


def toy_figure(final: pd.DataFrame, radius: int) -> Figure:
    """The accuracy of each network on the HFC at a radius."""
    rows = select(final, [radius], "mean", "running").query("band == 'hfc'")
    with drawn_in(CHART):
        figure = blank(6, 3)
        ax = figure.subplots()
        ax.plot(rows["variant"], rows["value"], "o")
        ax.set(ylabel="Accuracy", ylim=(0, 1))
    return figure


class ToyParameters(SeveralSeeds):
    """The parameters of `notebooks/toy.ipynb`."""

    preset: Preset = Field("smoke", description="one of smoke, laptop, narrow, paper, authors")
    seeds: Seeds = (0,)
    radius: PaperRadius = Field(8, title="where the images are cut")


TOY = Chapter(
    name="toy",
    question="Does a toy read the HFC?",
    topic="toy",
    paper="nowhere",
    figures={"toy-bands": "training"},
    recipes=toy_recipes,
    titles={"toydrop": "Dropout at .2"},
    required=("vanilla", "toydrop"),
    parameters=ToyParameters,
    evidence=partial(gather, which="final"),
)
'''
CLAIM = """
- id: toy-dropout
  chapter: toy
  main: true
  section: ours
  text: A little dropout makes the network more accurate on the HFC at r = 8 than vanilla training does
  version: controlled
  measured: controlled
  contrast: toydrop.H8 - vanilla.H8
  relation: exceeds
"""
RULE = f"""
- id: toy-dropout
  rule: "toydrop less vanilla, accuracy on the HFC at r = 8: exceeds 0"
  committed: {max(rule["committed"] for rule in rules())}
  commit: null
  known: no run
"""
ANSWER = """# Does a toy read the HFC?

::::{admonition} The answer
:class: tip

**We find** a number. **How sure**: one network. **Verdicts**: 1 one network.
::::
"""
LAST = """## What to take away

Nothing. **What would change our mind**: more networks.

**Exercise.** Train another one.

:::{dropdown} Solution
`hfc train toy --preset smoke --seed 1`
:::
"""
FIGURE = {
    "tags": ["figure", "remove-input"],
    "mystnb": {
        "figure": {"name": "toy-bands", "caption": "Accuracy of two toys on the HFC."},
        "image": {"alt": "Two points, one for each of the networks"},
    },
}
HIDDEN = {"tags": ["remove-input"]}
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
CELLS = [
    new_markdown_cell(ANSWER),
    new_code_cell(
        "from hfclib.paper import toy\n"
        "from hfclib.paper.scoreboard import notebook_scoreboard, readable\n"
        "from hfclib.paper.show import show_figure, show_provenance, show_table\n"
        "from hfclib.paper.tables import gather"
    ),
    new_code_cell(
        'radius: int = 8  # DFT bins\npreset: str = "smoke"\nseeds: list = [0]\nretrain: bool = False',
        metadata={"tags": ["parameters"]},
    ),
    new_code_cell(
        'settings = toy.TOY.check(globals())\nruns = toy.TOY.obtain(settings)\nfinal = gather(runs, "final")'
    ),
    new_code_cell("figure = toy.toy_figure(final, settings.radius)\nshow_figure(figure)", metadata=FIGURE),
    new_code_cell('show_provenance("toy-bands", runs.all(), final)', metadata=HIDDEN),
    new_code_cell('show_table(readable(notebook_scoreboard("toy", settings.preset, runs)))', metadata=HIDDEN),
    new_markdown_cell(LAST),
]
# What looks at every chapter: all but the tests that run the notebooks of others.
LISTING = ["tests/book/test_book.py", "tests/notebooks", "tests/core/test_imports.py"]
LISTING += [f"tests/paper/test_{name}.py" for name in ("parameters", "recipes", "rules", "scoreboard")]
# The copy has no history, and its data are a link; the toy has few words.
CHOICE = "(toy or not runs_at_smoke) and not wheel and not source_distribution and not small and not committed"
CHOICE += " and not is_short"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the checkout with the chapter, and what runs a command in it."""
    folder = tmp_path_factory.mktemp("toy") / "hfclib"
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (path for path in ROOT.iterdir() if path.is_file()):
        shutil.copy(file, folder)
    (folder / "data").symlink_to(ROOT / "data")
    (folder / "hfclib/paper/toy.py").write_text(MODULE)
    nbformat.write(new_notebook(cells=CELLS, metadata=KERNEL), folder / "notebooks/toy.ipynb")
    for file, old, new in (
        ("hfclib/paper/names.py", "CHAPTER_PLACES = {\n", '    "toy": "hfclib.paper.toy:TOY",\n'),
        ("_toc.yml", "      - file: notebooks/fig1\n", "      - file: notebooks/toy\n"),
    ):
        text = (folder / file).read_text()
        assert text.count(old) == 1
        (folder / file).write_text(text.replace(old, old + new))
    for file, entry in {"claims": CLAIM, "rules": RULE}.items():
        with (folder / f"hfclib/paper/{file}.yaml").open("a") as record:
            record.write(entry)
    own = {"PYTHONPATH": str(folder), "HFCLIB_HOME": str(folder.parent / "home")}

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words], cwd=folder, env=os.environ | own, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    run("-m", "hfclib.cli", "train", "toy", "--preset", "smoke")
    run("-m", "jupyter", "execute", "--inplace", "notebooks/toy.ipynb")
    return folder, run


@pytest.mark.slow
def test_a_module_a_notebook_and_a_line_are_a_chapter(checkout):
    folder, run = checkout
    shown = (folder / "notebooks/toy.ipynb").read_text()
    assert "A little dropout makes the network" in shown
    assert "Where this figure comes from" in shown
    run("-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *LISTING, "-k", CHOICE)


@pytest.mark.slow
def test_the_pages_that_list_chapters_have_the_new_one(checkout):
    _, run = checkout
    made = run(
        "-c",
        "from book import board, chapters\n"
        "from hfclib.paper.all_networks import network_name, networks_recipes\n"
        "from hfclib.paper.scoreboard import published_scoreboard\n"
        "print(chapters.questions().data, chapters.parameters().data, chapters.figures().data)\n"
        "print(board.topics(published_scoreboard(['toy', 'fig3'])).data)\n"
        "print(network_name('toydrop'), 'toydrop' in networks_recipes())",
    )
    for part in (
        '<a href="../notebooks/toy.html">Does a toy read the HFC?</a>',
        "<td>where the images are cut</td>",
        "<code>toy-bands</code>",
        'id="toy-dropout"',
        "Dropout at .2 True",
    ):
        assert part in made


@pytest.mark.slow
def test_the_page_of_the_new_chapter_is_built(checkout):
    build = Path(sys.executable).with_name("jupyter-book")
    if not build.exists():
        pytest.skip("no Jupyter Book: it comes with the extra `book`")
    folder, run = checkout
    toc = {"format": "jb-book", "root": "book/glossary", "chapters": [{"file": "notebooks/toy"}]}
    (folder / "toy-toc.yml").write_text(yaml.safe_dump(toc))
    run(str(build), "build", ".", "--toc", "toy-toc.yml", "--path-output", str(folder.parent / "built"))
    (page,) = (folder.parent / "built").rglob("toy.html")
    html = page.read_text()
    assert "<h1>Does a toy read the HFC?" in html
    assert re.search(r'<img alt="Two points, one for each of the networks"[^>]*\.svg"', html)
    assert "A little dropout makes the network" in html
