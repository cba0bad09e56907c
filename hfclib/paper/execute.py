"""Executing a chapter's notebook with other parameters, through papermill."""

import contextlib
import hashlib
import json
import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import papermill
import yaml

from hfclib._files import home
from hfclib.paper.parameters import unknown
from hfclib.paper.registry import CHAPTERS

_LOG = logging.getLogger(__name__)


def read_parameters(words: Sequence[str], documents: Sequence[str]) -> dict[str, object]:
    """A notebook's parameters by name.

    Args:
        words: "-p", a name and its value, a number or YAML, again and again.
        documents: YAML mappings from names to values.
    Raises:
        ValueError: the words have another form, are not YAML, or name a parameter twice.
    """
    if len(words) % 3 or any(word not in ("-p", "--parameter") for word in words[::3]):
        raise ValueError(f"expected -p NAME VALUE, once per parameter, got {' '.join(words)}")
    try:
        pairs = [(name, _value(value)) for name, value in zip(words[1::3], words[2::3], strict=True)]
        for document in map(yaml.safe_load, documents):
            if not isinstance(document, dict):
                raise ValueError(f"expected -y 'NAME: VALUE', got {document!r}")
            pairs += document.items()
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())
        raise ValueError(f"expected values in YAML, such as 8 or [4, 8]: {said}") from error
    names = [name for name, _ in pairs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"expected each parameter once, got {twice[0]} again")
    return dict(pairs)


def _value(text: str) -> object:
    """A number as papermill reads it (010 is 10, 1e-3 is .001), or else YAML."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return yaml.safe_load(text)


def output_name(chapter: str, values: Mapping[str, object]) -> str:
    """The default name of an executed notebook, such as "fig4-feed=max-radius=4,8.ipynb".

    Only letters, digits and ".,=+-_" of the parameters are kept; where that is over 60 characters, 50 and a hash are.
    """
    text = "-".join(f"{name}={json.dumps(value)}" for name, value in sorted(values.items()))
    safe = re.sub(r"[^\w.,=+-]", "", text, flags=re.ASCII) or "defaults"
    if len(safe) > 60:
        safe = f"{safe[:50]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return f"{chapter}-{safe}.ipynb"


def execute(chapter: str, values: Mapping[str, object], output: Path | None = None) -> Path:
    """Execute a chapter's notebook. Its progress, and what it writes to stderr, go to stderr.

    Args:
        chapter: a key of `CHAPTERS`.
        values: parameters by name.
        output: of the executed notebook; None is `output_name` in the current folder. It is written, or replaced, only
            when the whole notebook has run.
    Returns:
        The path of the executed notebook.
    Raises:
        ValueError: there is no notebook; the chapter's check refuses a name or value; the output is a notebook of the
            book, a folder or a file of another kind; or a cell failed: the notebook up to there is kept as
            `*.failed.ipynb`.
    """
    notebook = Path(__file__).parents[2] / "notebooks" / f"{chapter}.ipynb"
    if not notebook.exists():
        raise ValueError(f"expected a checkout, which has the notebooks: no {notebook}")
    known = tuple(CHAPTERS[chapter].parameters.model_fields)
    for name in values:  # also those that a notebook's own check takes for names of the shell
        if name not in known:
            raise unknown(name, values[name], known)
    CHAPTERS[chapter].check(dict(values))
    target = output or Path(output_name(chapter, values))
    book = [notebook.with_name(f"{name}.ipynb") for name in CHAPTERS]
    if target.resolve() in book or target.is_dir() or (target.exists() and target.suffix != ".ipynb"):
        raise ValueError(f"expected an output that is no notebook of the book, folder or other file, got {target}")
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    also = "; what is not stored for other parameters is computed first" if values else ""
    _LOG.info("%s: %d cells%s", chapter, len(cells), also)
    if os.environ.get("HFCLIB_HOME"):
        os.environ["HFCLIB_HOME"] = str(home().absolute())  # the notebook runs in another folder
    working = target.with_name(f"{target.stem}.running-{os.getpid()}.ipynb")
    try:
        # The kernel would warn that it uses TCP, which it does on this machine only.
        quiet = {"stderr_file": sys.stderr, "extra_arguments": ["--log-level=CRITICAL"]}
        papermill.execute_notebook(notebook, working, dict(values), cwd=notebook.parent, **quiet)
        working.replace(target)
    except Exception as error:
        if not working.exists():
            raise
        failed = working.replace(target.with_name(f"{target.stem}.failed.ipynb"))
        what = f"{error.ename}: {error.evalue}" if hasattr(error, "ename") else f"{type(error).__name__}: {error}"
        raise ValueError(f"{what}; the notebook up to there is {failed}") from error
    finally:
        working.unlink(missing_ok=True)
    return target
