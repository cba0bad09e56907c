"""Sphinx extension of this book: all that leads to where it is published, from the block `site` of `_config.yml`.

While a field is empty, what needs it is left out: launch buttons, "suggest edit" and issues without `repository`,
canonical links and the picture of shared links without `address`, the DOI without `doi`.
"""

import re

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ConfigError

FIELDS = {
    "address": (r"https?://[^\s/]+(/\S*)?", "https://example.org/hfclib/"),
    "repository": (
        r"https://(github\.com|gitlab\.com|bitbucket\.org)/[\w.-]+/[\w.-]+",
        "https://github.com/OWNER/hfclib",
    ),
    "branch": (r"\S+", "main"),
    "doi": (r"10\.\d{4,9}/\S+", "10.5281/zenodo.1234567"),
}


def checked(site: dict[str, str]) -> dict[str, str]:
    """The fields, those that are missing empty.

    Raises:
        ConfigError: a field that does not exist, or a value that cannot be one.
    """
    if unknown := sorted(set(site) - set(FIELDS)):
        raise ConfigError(f"site in _config.yml has no field {', '.join(unknown)}, only {', '.join(FIELDS)}")
    values = {name: site.get(name) or "" for name in FIELDS}
    for name, (pattern, example) in FIELDS.items():
        if values[name] and not re.fullmatch(pattern, values[name]):
            raise ConfigError(f"site in _config.yml: expected {name} to be like {example}, got {values[name]!r}")
    return values


def follow(app: Sphinx, config: Config) -> None:
    """Give Sphinx and the theme what the fields say."""
    site, options = checked(config.site), config.html_theme_options
    config.html_baseurl = site["address"]
    known = bool(site["repository"])
    options["repository_url"], options["repository_branch"] = site["repository"], site["branch"] or "main"
    for button in ("use_repository_button", "use_issues_button", "use_edit_page_button"):
        options[button] = known
    binder = {"binderhub_url": "https://mybinder.org", "notebook_interface": "jupyterlab"}
    options["launch_buttons"] = binder if known else {}
    if doi := site["doi"]:
        options["extra_footer"] = f'<p>DOI <a href="https://doi.org/{doi}">{doi}</a></p>'


def tell(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object) -> None:
    """For those who share or cite a page: its picture, its address and the DOI."""
    site, tags = checked(app.config.site), []
    if address := site["address"].rstrip("/"):
        shared = {"image": f"{address}/_static/share.png", "url": context["pageurl"], "type": "article"}
        tags += [f'property="og:{name}" content="{content}"' for name, content in shared.items()]
        tags += ['name="twitter:card" content="summary_large_image"']
    if site["doi"]:
        tags += [f'name="citation_doi" content="{site["doi"]}"']
    context["metatags"] = context.get("metatags", "") + "".join(f"<meta {tag}>\n" for tag in tags)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.add_config_value("site", {}, "html", dict)
    app.connect("config-inited", follow, priority=100)  # before the theme reads its options
    app.connect("html-page-context", tell)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
