"""Sphinx extension of this book: no page asks another machine for anything, and models are short.

MathJax comes out of the package sphinx-mathjax-offline: of its 24 MB only the one file that renders TeX as SVG, fonts
included, goes into the book.
"""

from dataclasses import MISSING, fields, is_dataclass
from importlib.resources import files
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

MATHJAX = "tex-svg.js"


def vendor_mathjax(app: Sphinx, config: Config) -> None:
    """Serve MathJax from the book's own `_static` folder."""
    path = Path(str(files("sphinx-mathjax-offline") / "static" / "mathjax" / MATHJAX))
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: install sphinx-mathjax-offline again")
    config.html_static_path.append(str(path))
    config.mathjax_path = MATHJAX


def short_signature(app, what, name, obj, options, signature, returns) -> tuple[str, str] | None:
    """The signature of a pydantic model or of a part of a recipe: fields and defaults, without the checks, which would
    fill a page.
    """
    if what != "class":
        return None
    if models := getattr(obj, "__pydantic_fields__", None):
        shown = [name if field.is_required() else f"{name}={field.default!r}" for name, field in models.items()]
    elif is_dataclass(obj) and obj.__module__ == "hfclib.training.recipe":
        own = fields(obj)
        shown = [field.name if field.default is MISSING else f"{field.name}={_short(field.default)}" for field in own]
        shown.insert(sum(not field.kw_only for field in own), "*")
    else:
        return None
    return f"({', '.join(shown)})", ""


def _short(value: object) -> str:
    return f"{type(value).__name__}()" if is_dataclass(value) else repr(value)


def skip_numbers_of_fields(app, what, name, obj, skip, options) -> bool | None:
    """The fields of a named tuple are in its signature; what Python says of each is its number."""
    return True if str(getattr(obj, "__doc__", "")).startswith("Alias for field number") else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("config-inited", vendor_mathjax)
    app.connect("autodoc-process-signature", short_signature)
    app.connect("autodoc-skip-member", skip_numbers_of_fields)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
