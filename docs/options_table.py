"""The directive ``kvs-options``, which makes the table of a setting's keys from the code.

::

    .. kvs-options:: kvs.session

        max_bytes
            the maximum size of a session in bytes
        cookie_secure: depends on the request
            send the cookie only by https

Each key has its meaning below it, as reStructuredText. A default in words replaces the one from the
code. The keys that several settings share have their meanings here. A key of the code without a
meaning is an error, and so is a meaning without a key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar

from docutils import nodes
from docutils.statemachine import StringList
from setting_keys import SHARED, Meaning, allowed, default_of, read_meanings, read_options
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from pyramid_kvs.settings import Option


def rows(options: dict[str, Option], meanings: dict[str, Meaning]) -> Iterator[str]:
    """Yield the lines of a list-table."""
    yield from (".. list-table::", "    :header-rows: 1", "    :widths: 20 18 62", "")
    yield from ("    * - key", "      - default", "      - meaning")
    for key, option in options.items():
        text = " ".join(meanings[key].lines)
        values = re.sub(r"([*_`|\\])", r"\\\1", allowed(option))
        yield f"    * - ``{key}``"
        yield f"      - {default_of(option, meanings[key])}"
        yield f"      - {text}. Allowed: {values}."


class OptionsTable(SphinxDirective):
    required_arguments = 1
    has_content = True
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        options = read_options(self.arguments[0])
        shared = read_meanings(SHARED.splitlines())
        own = read_meanings(list(self.content))
        meanings = {**{key: text for key, text in shared.items() if key in options}, **own}
        if options.keys() != meanings.keys():
            wrong = ", ".join(sorted(options.keys() ^ meanings.keys()))
            raise self.error(f"{self.arguments[0]}: keys only here or only in the code: {wrong}")
        self.env.note_dependency(__file__)
        container = nodes.container()
        source = self.get_source_info()[0]
        self.state.nested_parse(StringList(list(rows(options, meanings)), source), 0, container)
        return container.children


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("kvs-options", OptionsTable)
    return {"parallel_read_safe": True}
