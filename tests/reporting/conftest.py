"""What tests of reports share; only those marked `drawn` draw a report's page and card, which take most of its time."""

from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from hfclib.cli import app


@pytest.fixture(autouse=True)
def _undrawn(request, monkeypatch):
    if not request.node.get_closest_marker("drawn"):
        monkeypatch.setattr("hfclib.reporting.make.page", SimpleNamespace(html=lambda *_: ""))
        monkeypatch.setattr("hfclib.reporting.make.card", lambda _: SimpleNamespace(savefig=lambda path: None))


@pytest.fixture
def hfc(monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.chdir(tmp_path)
    return lambda *words, **options: CliRunner().invoke(app, [str(word) for word in words], **options)
