"""How a script runs in a process."""

from __future__ import annotations

import os

#: Pyramid imports pkg_resources, which warns with some versions of setuptools.
QUIET = {**os.environ, "PYTHONWARNINGS": "ignore"}
