"""The numbers in the README are those of the published runs, and what it shows works."""

import re
import tomllib
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from book import picture
from hfclib.paper.fig4 import FIG4, set_ups, set_ups_table
from hfclib.paper.tables import CONDITION_TITLES, CONDITIONS, decimals, select, with_interval
from hfclib.paper.width import leads_by_width, width_runs
from hfclib.runs.collect import published_runs
from tests.paper.tidy import stored_scoreboard

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
# The claims whose statistic it gives, with its interval.
HEADLINES = (
    "generalisation-H8",
    "generalisation-H4",
    "generalisation-rule-H4",
    "fig4-batchnorm-H4",
    "fig4-batchnorm-H4-controlled",
    "batchnorm-left-H4",
    "defense-input-masked",
)


@pytest.fixture(scope="module")
def runs():
    return FIG4.obtain(FIG4.parameters())


@pytest.fixture(scope="module")
def board():
    return stored_scoreboard()


def test_every_interval_is_that_of_the_scoreboard(board):
    prose = " ".join(line for line in README.splitlines() if not line.startswith("|"))
    intervals = re.findall(r"-?\.\d+ \[[^]]*\]", prose)
    assert intervals == [text.replace("\u00a0", " ") for text in board.loc[list(HEADLINES), "ours"]]


def test_leads_by_training_are_those_of_the_chapter_on_heuristics():
    """Row by row: the early epochs of a training as `leads_by_width` has them, the others as `set_ups_table`."""
    measured = list(CONDITION_TITLES.values())
    early = leads_by_width(width_runs()).set_index(["set_up", "epochs", "width", "measured"])
    whole = set_ups_table(set_ups())[[f"lead, {words}" for words in measured]]

    def after(*place):
        return [
            decimals(row["lead"]) if row["seeds"] == 1 else with_interval(*row[["lead", "low", "high"]])
            for row in (early.loc[(*place, words)] for words in measured)
        ]

    stated, cropped = "as stated in the paper", "as stated, with crop and flip"
    expected = [
        ["our schedule, with crop and flip", "16", "16", "10", *whole.loc["our schedule (10)"]],
        [stated, "16", "16", "3", *after("as stated", 16, 16)],
        [stated, "16", "100", "3", *whole.loc["as stated (3)"]],
        [stated, "32", "16", "3", *whole.loc["as stated, 16 epochs, width 32 (3)"]],
        [stated, "64", "16", "3", *after("as stated", 16, 64)],
        [cropped, "16", "4", "3", *after("crop and flip", 4, 16)],
        [cropped, "16", "30", "3", *after("crop and flip", 30, 16)],
        [cropped, "16", "100", "3", *whole.loc["as stated, with crop and flip (3)"]],
        [cropped, "64", "4", "3", *after("crop and flip", 4, 64)],
        [cropped, "64", "30", "2 vanilla, 1 BatchNorm", *after("crop and flip", 30, 64)],
        ["the paper", "64", "100", "1", *whole.loc["the paper"]],
    ]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in README.splitlines() if line[:1] == "|"]
    assert rows[2:] == [[cell.replace("\u00a0", " ") for cell in row] for row in expected]


def test_levels_are_those_of_the_runs():
    final = FIG4.published()
    at_four = [select(final, [4], *condition) for condition in CONDITIONS.values()]
    means = [
        rows[rows["cell"] == "H4"].groupby("variant")["value"].mean().map(partial(decimals, places=2))
        for rows in at_four
    ]
    for variant, name in (("vanilla", "vanilla goes"), ("batchnorm", "BatchNorm")):
        assert f"{name} from {means[0][variant]} to {means[1][variant]}" in " ".join(README.split())


def test_the_papers_lead_and_the_counts_of_networks_are_those_of_the_scoreboard(board):
    text, seeds = " ".join(README.split()), board["seeds"]
    in_words = {"3": "three", "5": "five", "10": "ten"}
    for fact in (
        f"Over {seeds['generalisation-H4']} recipes",
        f"the paper has {decimals(float(board.at['fig4-batchnorm-H4', 'paper']), 2)}",
        f"{in_words[seeds['fig4-batchnorm-H4']]} networks of each kind behind finding 2",
        f"{in_words[seeds['defense-input-masked']]} behind 3.",
    ):
        assert fact in text


def test_the_set_up_that_gives_the_papers_accuracies_has_its_numbers(board):
    within = board.at["fig4-cropped-levels", "ours"].split()[0]
    assert f"(width 16, 100 epochs: within {within}, means over seeds, running averages)" in " ".join(README.split())


def test_the_picture_shows_the_numbers_of_the_runs():
    text = ElementTree.parse(picture.FILE).find(".//{*}description").text
    assert text.split() == picture.drawn()[1].split(), "draw it again: python -m book.picture"


def test_cost_and_accuracy_are_those_of_the_runs(runs):
    published = published_runs(FIG4.recipes("laptop")).all()
    seconds = [run.provenance["train_seconds"] + run.provenance["eval_seconds"] for run in published]
    cost = (
        f"{len(seconds)} published runs at this preset, {min(seconds) / 60:.0f} to {max(seconds) / 60:.0f} minutes each"
    )
    accuracy = sum(run.test_accuracy() for run in runs["vanilla"]) / len(runs["vanilla"])
    assert cost in README.replace("\n", " "), cost
    assert f"ours at {decimals(accuracy, 2)}" in README


def test_the_python_example_runs(capsys):
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    exec(code, {})
    assert "hfc" in capsys.readouterr().out


def test_the_conda_environment_agrees_with_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert f"python{project['requires-python']}" in environment
    extras = re.search(r"\[(.*)\]", environment[-1]["pip"][0]).group(1).split(",")
    assert set(extras) <= set(project["optional-dependencies"])
    assert not [d for d in project["dependencies"] if "==" in d or "+cpu" in d]


def test_the_locked_versions_are_in_the_ranges_of_the_project():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    locked = {canonicalize_name(name): version for name, version in pairs}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    for requirement in map(Requirement, wanted):
        if requirement.name != "hfclib":
            assert locked[canonicalize_name(requirement.name)] in requirement.specifier, requirement
