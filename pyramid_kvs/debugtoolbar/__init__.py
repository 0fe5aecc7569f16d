"""A panel of pyramid_debugtoolbar: what a request did with its stores, its session and its limits.

It is present if the toolbar is included in the application too, before or after ``pyramid_kvs``.
Without the toolbar, nothing of this package but this module is imported.
"""

from __future__ import annotations

import sys
from typing import Any

from pyramid.config import Configurator
from pyramid.interfaces import PHASE3_CONFIG
from pyramid.registry import Registry
from pyramid.settings import asbool

from ..application import Application

#: After everything that an application includes.
_ORDER = PHASE3_CONFIG + 20

_FEATURE = "debugtoolbar"


def includeme(config: Configurator) -> None:
    """Add the panel to the toolbar of the application, if it has one.

    It can also be named in ``debugtoolbar.includes``, which is needed only if the toolbar is
    included after the configuration was committed.
    """
    if hasattr(config, "add_debugtoolbar_panel"):  # in the application of the toolbar itself
        add_panel(config.registry.parent_registry, config.registry)
        return
    registry = config.registry
    config.action(
        ("kvs", _FEATURE), lambda: add_panel(registry, _toolbar_of(registry)), order=_ORDER
    )


def _toolbar_of(registry: Registry) -> Any:
    """Return the registry of the toolbar's application, or ``None`` if it is not included."""
    if "pyramid_debugtoolbar" not in sys.modules:
        return None
    from pyramid_debugtoolbar.toolbar import IToolbarWSGIApp

    is_enabled = asbool((registry.settings or {}).get("debugtoolbar.enabled", True))
    toolbar = registry.queryUtility(IToolbarWSGIApp) if is_enabled else None
    return None if toolbar is None else toolbar.registry


def add_panel(registry: Registry, toolbar: Any) -> None:
    """Add the panel, and have it told about the operations of the application's stores.

    :param toolbar: the registry of the toolbar's application, or ``None``.
    """
    application = Application.of(registry)
    if toolbar is None or _FEATURE in application.features:
        return
    from pyramid_debugtoolbar.toolbar_app import IPanelMap

    from .collecting import collect
    from .panel import StoresPanel
    from .sessions import watch_sessions

    application.features[_FEATURE] = StoresPanel
    toolbar.getUtility(IPanelMap)[StoresPanel.name, False] = StoresPanel
    application.add_listener(collect)
    watch_sessions(application)
