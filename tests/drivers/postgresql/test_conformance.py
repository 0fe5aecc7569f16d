"""The postgresql driver on the conformance suite."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance import SharedConformance
from tests.servers import PostgresServer


class TestPostgresql(SharedConformance):
    @pytest.fixture
    def store(self, postgres_server: PostgresServer) -> tuple[str, dict[str, Any]]:
        return "postgresql", {"url": postgres_server.url}
