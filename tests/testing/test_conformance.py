"""The ``mock`` driver on the conformance suite."""

from __future__ import annotations

from typing import Any

import pytest

from pyramid_kvs.testing import MockCache
from tests.conformance import Conformance


class TestMock(Conformance):
    @pytest.fixture
    def store(self, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
        monkeypatch.setattr(MockCache, "cached_data", {})
        return "mock", {}
