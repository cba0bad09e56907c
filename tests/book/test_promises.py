"""The table of what survives: each row names tests, and these exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEST = re.compile(r"`([\w/]*test_\w+\.py)::(\w+)`")


def rows():
    """The last column of each row of the table of promises."""
    text = (ROOT / "CONTRIBUTING.md").read_text().split("| what happens | what is promised | test |\n")[1]
    table = text.split("\n\n")[0].splitlines()[1:]
    return [line.strip("| ").split(" | ") for line in table]


def test_every_promise_names_tests_that_exist():
    found = rows()
    assert len(found) >= 14
    for row in found:
        assert len(row) == 3, row
        named = TEST.findall(row[2])
        assert named, row
        for file, name in named:
            module = ast.parse((ROOT / "tests" / file).read_text())
            assert name in {node.name for node in module.body if isinstance(node, ast.FunctionDef)}, f"{file}::{name}"


def test_slow_is_said_of_the_slow_ones_only():
    for _, _, tests in rows():
        for file, name, slow in re.findall(r"`([\w/]*test_\w+\.py)::(\w+)`( \(slow\))?", tests):
            text = (ROOT / "tests" / file).read_text()
            decorators = text.split(f"\ndef {name}(")[0].split("\n\n\n")[-1]
            assert ("pytest.mark.slow" in decorators) == bool(slow), name
