"""The setting ``kvs.observe``: names, mistakes, and libraries that are missing."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError

from pyramid_kvs.application import Application
from pyramid_kvs.observe import read_names
from tests.observe.apps import configured

MEMORY: dict[str, Any] = {"kvs.cache": {"kvs": "memory"}}


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ('["opentelemetry", "prometheus"]', ["opentelemetry", "prometheus"]),
        ('["prometheus", "prometheus"]', ["prometheus"]),
        (["prometheus"], ["prometheus"]),
        ("[]", []),
    ],
)
def test_names_are_a_list(value: Any, names: list[str]) -> None:
    assert read_names(value) == names


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('["promtheus"]', 'found ["promtheus"], expected one of "opentelemetry", "prometheus"'),
        ('["promtheus"]', 'did you mean "prometheus"?'),
        ("prometheus", 'found "prometheus", expected a list of "opentelemetry", "prometheus"'),
        ("prometheus", 'write for example ["prometheus"]'),
        ("{}", "found "),
        ('["prometheus",]', "not valid JSON"),
        ([1], "found [1], expected one of"),
    ],
)
def test_mistakes_are_explained(value: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        configured({**MEMORY, "kvs.observe": value})
    assert "kvs.observe: " in str(caught.value)
    assert message in str(caught.value).replace("'prometheus'?", '"prometheus"?')


@pytest.mark.parametrize(
    ("name", "library"),
    [("opentelemetry", "opentelemetry"), ("prometheus", "prometheus_client")],
)
def test_a_missing_library_is_named_with_the_package_to_install(
    name: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, f"pyramid_kvs.observe.{name}", raising=False)
    for module in [found for found in sys.modules if found.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    monkeypatch.setattr(sys, "meta_path", [_Hidden(library), *sys.meta_path])
    with pytest.raises(ConfigurationError) as caught:
        configured({**MEMORY, "kvs.observe": [name]})
    assert f"{library!r}, which is not installed: pip install pyramid_kvs[{name}]" in str(
        caught.value
    )


class _Hidden:
    """A finder for which a library is not installed."""

    def __init__(self, library: str) -> None:
        self._library = library

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.split(".")[0] == self._library:
            raise ModuleNotFoundError(f"No module named {name!r}", name=self._library)


def test_without_the_setting_nothing_is_observed() -> None:
    assert Application.of(configured(MEMORY)).listeners == []


def test_a_setting_that_is_set_after_the_include_is_refused() -> None:
    config = Configurator(settings=dict(MEMORY))
    config.include("pyramid_kvs")
    config.registry.settings["kvs.observe"] = '["prometheus"]'
    with pytest.raises(ConfigurationError, match=r"kvs\.observe was set after pyramid_kvs"):
        config.make_wsgi_app()


def test_a_misspelled_setting_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"did you mean 'kvs\.observe'"):
        configured({**MEMORY, "kvs.obserfe": '["prometheus"]'})
