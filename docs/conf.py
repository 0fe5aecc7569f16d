"""Sphinx settings. The build works without a network.

On Read the Docs, names of Python and Pyramid are links to their documentation.
"""

from __future__ import annotations

import configparser
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

_metadata = configparser.ConfigParser()
_metadata.read(ROOT / "setup.cfg", encoding="utf-8")

project = _metadata["metadata"]["name"]
author = _metadata["metadata"]["author"]
release = version = _metadata["metadata"]["version"]
project_copyright = f"2026, {author}"

extensions = ["sphinx.ext.autodoc", "options_table"]
if os.environ.get("READTHEDOCS") == "True":
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "pyramid": ("https://docs.pylonsproject.org/projects/pyramid/en/latest", None),
    }
exclude_patterns = ["_build", "demo"]
html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["static"]
html_css_files = ["pictures.css"]
autodoc_member_order = "bysource"
autodoc_mock_imports = ["kinto"]

# Quotes in tables of settings are copied into JSON.
smartquotes = False
nitpicky = True
# Names from other projects, and names in annotations that no page describes.
nitpick_ignore_regex = [
    (r"py:class", r"Data|Request|pyramid_kvs\.application\.Application"),
    (r"py:.*", r"(collections|datetime|json|logging|os|pathlib|re|typing|types|uuid)\b.*"),
    (r"py:.*", r"(hmac|kinto|memcache|psycopg|psycopg_pool|pyramid|redis|webob|zope)\b.*"),
    (r"py:.*", r"(pyramid_kvs\.)?([a-z_]+\.)*[A-Z]"),
]
