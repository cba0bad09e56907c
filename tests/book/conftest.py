"""The browser of this folder's tests."""

import os

import pytest

from book import browse


@pytest.fixture(scope="module")
def browser():
    """Chromium; where it or what drives it is missing, the tests are skipped, but not in CI."""
    if not browse.ready():
        if os.environ.get("CI"):
            pytest.fail("CI needs Chromium (apt-get install chromium) and the extra `test`")
        pytest.skip("no Chromium, Playwright or axe")
    with browse.browser() as opened:
        yield opened
