"""Help with names that are not known, without PyTorch: the command line gives it before it imports anything."""

import difflib
from collections.abc import Iterable


def nearest(name: object, known: Iterable[str]) -> str:
    """What a message about an unknown name ends with: "; did you mean NAME?", or "" where no known one is near."""
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""
