"""The settings and the example on the page about Kinto work in a Kinto."""

from __future__ import annotations

import configparser
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
from pyramid.testing import DummyRequest

from tests.kinto.stores import NAMES, Store, kinto
from tests.kinto.test_application import SETTINGS

PAGE = Path(__file__).parent.parent.parent / "docs" / "kinto.rst"


def examples(language: str) -> list[str]:
    """Return the page's code blocks of a language."""
    text = PAGE.read_text(encoding="utf-8")
    block = rf"^\.\. code-block:: {language}\n +:class: sketch\n\n((?: .*\n|\n)+)"
    return [textwrap.dedent(found) for found in re.findall(block, text, re.MULTILINE)]


def settings_of(text: str) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    parser.read_string(f"[app:main]\n{text}")
    return dict(parser["app:main"])


def test_all_backends_are_there() -> None:
    found = [settings_of(text)["kinto.cache_backend"] for text in examples("ini")]
    assert sorted(found) == sorted(f"pyramid_kvs.kinto.{name}" for name in NAMES)


@pytest.mark.parametrize("text", examples("ini"), ids=lambda text: text.split()[2])
def test_settings_start_a_kinto(text: str) -> None:
    """The stores need not run."""
    settings = settings_of(text)
    app = kinto.main({}, **SETTINGS, **settings)
    assert type(app.registry.cache).__module__.startswith("pyramid_kvs.kinto.")
    assert app.registry.cache.prefix == settings.get("kinto.cache_prefix", "")


@pytest.mark.parametrize("store", NAMES, indirect=True)
def test_example(store: Store) -> None:
    cache: Any = store.load(cache_prefix="example_")
    cache.initialize_schema()
    request = DummyRequest()
    request.registry.cache = cache
    (text,) = examples("python")
    exec(compile(text, str(PAGE), "exec"), {"request": request})
