"""Drivers written for 1.0, by name."""

from __future__ import annotations

import pytest

from pyramid_kvs.kvs import names as registry
from pyramid_kvs.kvs import register
from tests.kvs.old_drivers import CallsSuper, ClientOnly, WithHooks, WithoutClient


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    for cls in (ClientOnly, WithHooks, CallsSuper, WithoutClient):
        register(cls.__name__, cls)
    register("client", ClientOnly)
    register("hooks", WithHooks)
