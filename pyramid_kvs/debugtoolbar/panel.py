"""The panel: a summary, hints, the session, the limits, and each call on a store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyramid.request import Request
from pyramid.response import Response
from pyramid_debugtoolbar.panels import DebugPanel

from ..application import Application
from ..kvs import Operation, decode_key
from .collecting import SHOWN, Collection, collecting
from .limits import LimitInfo, limits_of
from .sessions import NOT_USED, SessionInfo, Watched


class StoresPanel(DebugPanel):  # type: ignore[misc]
    """Shows no id, no token, no value, and of a key only the prefix of the setting."""

    name = "kvs"
    title = "Stores"
    nav_title = title
    has_content = True
    template = "pyramid_kvs.debugtoolbar:panel.dbtmako"

    def __init__(self, request: Request) -> None:
        self.calls = Collection()
        self.session: SessionInfo = NOT_USED
        self.limits: list[LimitInfo] = []
        self._outer: Collection | None = None
        self._prefixes = prefixes(Application.of(request.registry))

    @property
    def nav_subtitle(self) -> str:
        total = self.calls.total
        return f"{_counted(total.calls, 'call')}, {total.seconds * 1000:.1f} ms"

    def wrap_handler(self, handler: Callable[[Request], Response]) -> Callable[..., Response]:
        def collect(request: Request) -> Response:
            self._outer = collecting.get()  # of the request that invoked this one
            collecting.set(self.calls)
            request.add_finished_callback(self._finish)
            return handler(request)

        return collect

    def _finish(self, request: Request) -> None:
        """Wait for the other callbacks, because they may use a store, and end the collection."""
        if request.finished_callbacks:
            request.add_finished_callback(self._finish_last)
        else:
            self._finish_last(request)

    def _finish_last(self, request: Request) -> None:
        session = vars(request).get("session")
        if isinstance(session, Watched):
            self.session = session.info()
        self.limits = limits_of(request)
        if collecting.get() is self.calls:
            collecting.set(self._outer)
        self._outer = None
        self.calls.end()

    def render_vars(self, request: Request) -> dict[str, Any]:
        total = self.calls.total
        return {
            "calls": self.calls,
            "total": total,
            "summary": [
                _counted(total.calls, "call"),
                _counted(total.round_trips, "round trip"),
                f"{total.seconds * 1000:.2f} ms",
                f"{_counted(total.hits, 'hit')} and {_counted(total.misses, 'miss', 'misses')}",
                f"{size(total.bytes_sent)} sent",
                f"{size(total.bytes_received)} received",
                _counted(total.errors, "error"),
            ],
            "hints": self._hints(),
            "session": self.session,
            "limits": self.limits,
            "prefix": self._prefix,
            "size": size,
            "printable": printable,
        }

    def _hints(self) -> list[str]:
        found = [
            f"{setting}: {_counted(keys, 'key was', 'keys were')} read more than once, up to "
            f"{most} times. Keep the value in a variable, or read several keys with get_many."
            for setting, (keys, most) in self.calls.repeated.items()
        ]
        if self.calls.left_out:
            found.append(f"Only the first {SHOWN} calls are shown.")
        return found

    def _prefix(self, operation: Operation) -> str:
        return self._prefixes.get((operation.setting, operation.server), "")


def prefixes(application: Application) -> dict[tuple[str, str], str]:
    """Return the key prefix of each store, by its setting and server."""
    found: dict[tuple[str, str], str] = {}
    for store in application.stores:
        place = (store.setting, store.address)
        prefix = printable(decode_key(store.driver.key_prefix))
        found[place] = found[place] + ", " + prefix if place in found else prefix
    return found


def size(count: int) -> str:
    """Return a number of bytes in words."""
    return f"{count} B" if count < 1024 else f"{count / 1024:.1f} KiB"


def printable(text: str) -> str:
    """Return text that a page can have, from any string. Names may come from a browser."""
    return text.encode("utf-8", "backslashreplace").decode()


def _counted(count: int, one: str, several: str = "") -> str:
    return f"{count} {one if count == 1 else several or one + 's'}"
