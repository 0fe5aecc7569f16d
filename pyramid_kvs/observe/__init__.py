"""``kvs.observe``: OpenTelemetry and Prometheus, as listeners of an application's stores."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError

from ..application import ORDER_NAMES, Application, add_feature
from ..messages import show
from ..settings import InvalidOption, list_of, parse

SETTING = "kvs.observe"

#: The module of this package that each name stands for, which defines ``new_listener``.
NAMES = ("opentelemetry", "prometheus")


def includeme(config: Configurator) -> None:
    """Add the listeners that the setting names."""
    names = read_names(config.registry.settings[SETTING])
    modules = {name: _import(name) for name in names}

    def build() -> Mapping[str, object]:
        application = Application.of(config.registry)
        known = application.features.setdefault(SETTING, {})
        for name, module in modules.items():
            if name not in known:  # a second include would count everything twice
                known[name] = module.new_listener(application)
                application.add_listener(known[name])
        return {"listeners": names}

    add_feature(config, SETTING, build, ORDER_NAMES)


def read_names(value: Any) -> list[str]:
    """Return the names in a setting, each of them once.

    :raises ConfigurationError: it is not a list of known names.
    """
    if isinstance(value, str) and "[" in value:
        value = parse(SETTING, value)
    try:
        return list(dict.fromkeys(list_of(*NAMES)(value)))
    except InvalidOption as error:
        raise ConfigurationError(
            f'{SETTING}: found {show(value)}, expected {error}; write for example ["prometheus"]'
        ) from None


def _import(name: str) -> Any:
    try:
        return importlib.import_module(f".{name}", __name__)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("pyramid_kvs"):
            raise
        raise ConfigurationError(
            f"{SETTING}: {name!r} needs {error.name!r}, which is not installed: "
            f"pip install pyramid_kvs[{name}]"
        ) from error
