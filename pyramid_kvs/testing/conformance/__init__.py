"""The driver contract as tests, for the author of a driver; they need pytest and nothing else.

::

    class TestFile(DriverConformance):
        def make(self, key_prefix, **options):
            return FileKVS("file", {"folder": "/tmp/files"}, key_prefix, **options)

Each test checks one sentence of the contract. Where a store must differ, the class overrides a
test and says why.
"""

from __future__ import annotations

import pytest

_PARTS = (
    *("abilities", "base", "claims", "concurrency", "counters", "keys", "lifetimes", "updates"),
    "values",
)
pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in _PARTS))  # before the imports

from .abilities import Abilities  # noqa: E402
from .claims import Claims  # noqa: E402
from .concurrency import Processes, Threads  # noqa: E402
from .counters import Counters  # noqa: E402
from .keys import Keys  # noqa: E402
from .lifetimes import Lifetimes  # noqa: E402
from .updates import Updates  # noqa: E402
from .values import Values  # noqa: E402

__all__ = ["DriverConformance"]


class DriverConformance(
    Abilities, Values, Keys, Lifetimes, Counters, Updates, Claims, Threads, Processes
):
    """The tests of a driver; a subclass whose name starts with ``Test`` defines :meth:`make`.

    A subclass says what its driver lacks:

    * ``shared = False``: the store belongs to one process;
    * ``is_atomic = False``: changes are atomic among the threads of a process, but not among
      processes, as the default hooks of a driver are;
    * ``lists_keys = False``: the driver has neither ``get_keys`` nor ``flush``;
    * ``tells_ttl = False``: the driver does not define ``raw_ttl``;
    * ``removes_keys = False``: the driver, which may be one for 1.0, cannot remove a key.

    The tests of such an ability are skipped. One test checks that the driver lacks what the class
    says it lacks, and nothing else.
    """
