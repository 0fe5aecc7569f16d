"""The mapping that a session is, its flash messages and its CSRF token, and what changed in it."""

from __future__ import annotations

import os
from collections.abc import ItemsView, Iterator, KeysView, MutableMapping, ValuesView
from typing import Any

from .merge import (
    META,
    QUEUE,
    REMOVED,
    USER,
    Changes,
    Dumps,
    Record,
    Snapshot,
    is_changed,
    snapshot,
)

CSRF_TOKEN = "__csrf_token"  # noqa: S105
_PLAIN = frozenset({str, int, float, bool, bytes, type(None)})
_REQUIRED: Any = object()


def new_id() -> str:
    """Return a random session id, which looks like one of 1.0's."""
    return os.urandom(20).hex()


class SessionMapping(MutableMapping[str, Any]):
    """Data that notices its changes, those inside of values as well.

    A value that cannot be changed in place is handed out as it is. Of any other a snapshot is
    taken when the caller gets hold of it, with which it is compared in the end.
    """

    __slots__ = (
        "_changed", "_cleared", "_data", "_dumps", "_meta", "_popped", "_snapshots", "_touched",
        "_unique", "_watched",
    )  # fmt: skip

    def __init__(self, dumps: Dumps) -> None:
        self._dumps = dumps
        #: The application's keys, flash queues included, and the metadata.
        self._data: Record = {}
        self._meta: Record = {}
        #: Whether the save is among the response's callbacks, or not to be there any more.
        self._watched = False
        self._forget_changes()

    def _forget_changes(self) -> None:
        self._touched: set[str] = set()
        self._snapshots: dict[str, Snapshot] = {}
        self._popped: set[str] = set()
        self._unique: dict[str, list[Any]] = {}
        self._changed = False
        self._cleared = False

    def _use(self) -> Record:
        """Return the data, which are loaded first; see to it that changes will be saved."""
        raise NotImplementedError

    def _changes(self) -> Changes:
        data, meta, dumps = self._data, self._meta, self._dumps
        values = {
            key: (meta if key.startswith(META) else data).get(key, REMOVED) for key in self._touched
        }
        for key, before in self._snapshots.items():
            if key not in values and is_changed(data[key], before, dumps):
                values[key] = data[key]
        return Changes(values, self._popped, self._unique, self._cleared)

    # -- reading --------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        value = (self._data if self._watched else self._use())[key]
        if type(value) not in _PLAIN:
            self._hand_out(key, value)
        return value

    def get(self, key: str, default: Any = None) -> Any:
        value = (self._data if self._watched else self._use()).get(key, default)
        if type(value) not in _PLAIN:
            self._hand_out(key, value)
        return value

    def __contains__(self, key: object) -> bool:
        return key in self._use()

    def __iter__(self) -> Iterator[str]:
        return iter(self._use())

    def __len__(self) -> int:
        return len(self._use())

    def keys(self) -> KeysView[str]:
        return self._use().keys()

    def values(self) -> ValuesView[Any]:
        return self._hand_out_all().values()

    def items(self) -> ItemsView[str, Any]:
        return self._hand_out_all().items()

    def _hand_out(self, key: str, value: Any) -> None:
        """Remember what a value is like, of which the caller gets hold."""
        if key in self._data and key not in self._touched and key not in self._snapshots:
            self._snapshots[key] = snapshot(value, self._dumps)

    def _hand_out_all(self) -> Record:
        for key, value in self._use().items():
            if type(value) not in _PLAIN:
                self._hand_out(key, value)
        return self._data

    # -- writing --------------------------------------------------------------------------

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise TypeError(f"a session key is a text (str), not {type(key).__name__}")
        if key.startswith(META):
            raise ValueError(f"session key {key!r}: keys that begin with {META!r} are reserved")
        self._use()[key] = value
        self._touched.add(key)

    def __delitem__(self, key: str) -> None:
        del self._use()[key]
        self._touched.add(key)

    def pop(self, key: str, default: Any = _REQUIRED) -> Any:
        data = self._use()
        if key not in data:
            if default is _REQUIRED:
                raise KeyError(key)
            return default
        self._touched.add(key)
        return data.pop(key)

    def popitem(self) -> tuple[str, Any]:
        key, value = self._use().popitem()
        self._touched.add(key)
        return key, value

    def clear(self) -> None:
        """Remove all keys, and the tie to a user; a session left so leaves the store."""
        self._cleared = True
        self._touched.update(self._use())
        self._data.clear()
        if self._meta.pop(USER, None) is not None:
            self._touched.add(USER)

    def changed(self) -> None:
        """Do nothing that is not done anyway: changes inside of values are found."""
        self._use()
        self._changed = True

    # -- flash messages and CSRF tokens ---------------------------------------------------

    def flash(self, msg: Any, queue: str = "", allow_duplicate: bool = True) -> None:
        key = QUEUE + queue
        messages = self._use().setdefault(key, [])
        if not allow_duplicate:
            if msg in messages:
                return
            self._unique.setdefault(key, []).append(msg)
        self._touched.add(key)
        messages.append(msg)

    def pop_flash(self, queue: str = "") -> list[Any]:
        key = QUEUE + queue
        if key not in self._use():
            return []
        self._popped.add(key)
        self._touched.add(key)
        messages: list[Any] = self._data.pop(key)
        return messages

    def peek_flash(self, queue: str = "") -> list[Any]:
        messages: list[Any] = self.get(QUEUE + queue, [])
        return messages

    def new_csrf_token(self) -> str:
        token = self[CSRF_TOKEN] = new_id()
        return token

    def get_csrf_token(self) -> str:
        token: str | None = self.get(CSRF_TOKEN)
        return self.new_csrf_token() if token is None else token
