"""Import every module of the installed package; only optional libraries may be missing."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import pyramid_kvs

OPTIONAL = {
    *("kinto", "opentelemetry", "prometheus_client", "psycopg", "pyramid_debugtoolbar", "pytest"),
}


def main() -> str | int:
    """Return the errors, or 0 if there are none."""
    problems = []
    for module in pkgutil.walk_packages(
        pyramid_kvs.__path__, "pyramid_kvs.", onerror=lambda _: None
    ):
        try:
            importlib.import_module(module.name)
        except ImportError as error:
            if str(error.name).partition(".")[0] not in OPTIONAL:
                problems.append(f"{module.name}: {error!r}")
    return "\n".join(problems) or 0


if __name__ == "__main__":
    sys.exit(main())
