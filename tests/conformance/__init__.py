"""The driver contract as tests; a driver joins with a class that has the fixture ``store``.

::

    class TestRedis(SharedConformance):
        @pytest.fixture
        def store(self, redis_server):
            return "redis", {"port": redis_server.port}

``store`` gives a driver's name and its ``kvs_kwargs``. Where a store must differ, the class
overrides a test and says why.
"""

from __future__ import annotations

import pytest

_PARTS = ("base", "claims", "concurrency", "counters", "keys", "lifetimes", "updates", "values")
pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in _PARTS))  # before the imports

from tests.conformance.claims import Claims  # noqa: E402
from tests.conformance.concurrency import Processes, Threads  # noqa: E402
from tests.conformance.counters import Counters  # noqa: E402
from tests.conformance.keys import Keys  # noqa: E402
from tests.conformance.lifetimes import Lifetimes  # noqa: E402
from tests.conformance.updates import Updates  # noqa: E402
from tests.conformance.values import Values  # noqa: E402

__all__ = ["Conformance", "SharedConformance"]


class Conformance(Values, Keys, Lifetimes, Counters, Updates, Claims, Threads):
    """For stores that belong to one process."""


class SharedConformance(Conformance, Processes):
    """For stores that several processes see."""
