"""Checks of all stores at the same time, which callers at the same time share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..application import Store
from ..forks import ProcessLock, renew_in_child
from ..start import failure_of, nodes_of

#: How long a check may take, in seconds. The drivers of the library need less.
LONGEST = 5.0

#: What is told of a store: its setting, its driver, whether it can serve, and how it was found.
Result = Mapping[str, Any]


class StoreChecks:
    """The checks of an application's stores.

    :param stores: more stores may be added later.
    """

    def __init__(self, stores: Sequence[Store]) -> None:
        self._stores = stores
        self._checks: dict[int, StoreCheck] = {}

    def run(self) -> list[Result]:
        """Check all stores at the same time; return what was found, in their order."""
        running = [self._check_of(store).join() for store in self._stores]
        return [check.result() for check in running]

    def _check_of(self, store: Store) -> StoreCheck:
        return self._checks.setdefault(id(store.driver), StoreCheck(store))


class StoreCheck:
    """The check of one store. While it runs, nobody starts another one in this process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = ProcessLock()
        self._running: RunningCheck | None = None
        renew_in_child(self)

    def after_fork(self) -> None:
        self._running = None  # its thread is in the parent

    def join(self) -> RunningCheck:
        """Return the check that runs, which is started if there is none."""
        with self._lock:
            if self._running is None:
                self._running = RunningCheck(self._store, self._end)
            return self._running

    def _end(self) -> None:
        with self._lock:
            self._running = None


class RunningCheck:
    """A check in a thread, so that a store that hangs does not delay the checks of others.

    :param end: called when the check is over, before anybody learns its result.
    """

    def __init__(self, store: Store, end: Callable[[], None]) -> None:
        self._store = store
        self._end = end
        self._began = time.perf_counter()
        self._result: Result | None = None
        self._is_over = threading.Event()
        # A daemon, so that a driver that never returns does not keep the process alive.
        threading.Thread(target=self._run, name="pyramid_kvs health", daemon=True).start()

    def result(self) -> Result:
        """Wait for the result. A check that takes too long is not waited for again."""
        self._is_over.wait(max(0.0, self._began + LONGEST - time.perf_counter()))
        return self._result or self._describe(f"the check has not ended within {LONGEST:g} s", {})

    def _run(self) -> None:
        driver = self._store.driver
        try:
            self._result = self._describe(failure_of(driver), nodes_of(driver))
        except BaseException as error:  # noqa: BLE001 (for example a timeout of gevent)
            self._result = self._describe(f"the check raised {type(error).__name__}", {})
        finally:
            self._end()
            self._is_over.set()

    def _describe(self, failure: str | None, nodes: Mapping[str, str | None]) -> Result:
        found = {
            "setting": self._store.setting,
            "driver": self._store.driver.kvs,
            "ok": failure is None,
            "milliseconds": round((time.perf_counter() - self._began) * 1000, 2),
            "reason": failure,
        }
        if nodes:
            found["nodes"] = [
                {"server": server, "ok": reason is None, "reason": reason}
                for server, reason in nodes.items()
            ]
        return found
