"""A session as a mapping that finds its own changes, with flash messages and a CSRF token."""

from __future__ import annotations

import copy
import os
from collections.abc import (
    Callable,
    ItemsView,
    Iterator,
    KeysView,
    Mapping,
    MutableMapping,
    ValuesView,
)
from typing import Any

from .keys import random_id
from .merge import PLAIN, REMOVED, Operation, Tracker, addition
from .records import META, POPPED, QUEUE, USER, Record
from .state import OPEN, Phase

CSRF_TOKEN = "__csrf_token"  # noqa: S105
_REQUIRED: Any = object()


def _refused(key: object) -> Exception:
    if not isinstance(key, str):
        return TypeError(f"a session key is a string (str), not {type(key).__name__}")
    return ValueError(f"session key {key!r}: keys that begin with {META!r} are reserved")


class SessionMapping(MutableMapping[str, Any]):
    """The mapping methods of a session, its flash messages and its CSRF token.

    A value that cannot change in place is returned as it is. Before the application gets any other
    value, a snapshot of it is taken. At the end, the value is compared with its snapshot.
    """

    __slots__ = ("_data", "_meta", "_phase", "_tracker")

    _phase: Phase
    #: The keys of the application, with its flash queues.
    _data: Record
    #: The metadata, which the mapping methods hide.
    _meta: Record
    #: ``None`` as long as there is nothing to save: nobody has set anything, or got a value that
    #: can change in place, and the record stays at its key. So it is in most requests.
    _tracker: Tracker | None

    def _use(self) -> Record:
        """Return the data, read from the store on first use; changes to them will be saved."""
        raise NotImplementedError

    def _tracked(self) -> Tracker:
        """Return what notes the changes; to be called after the first use."""
        raise NotImplementedError

    # -- reading --------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        value = (self._data if self._phase is OPEN else self._use())[key]
        if type(value) not in PLAIN:
            self._hand_out(key, value)
        return value

    def get(self, key: str, default: Any = None) -> Any:
        value = (self._data if self._phase is OPEN else self._use()).get(key, default)
        if type(value) not in PLAIN:
            self._hand_out(key, value)
        return value

    def __contains__(self, key: object) -> bool:
        return key in self._use()

    def __iter__(self) -> Iterator[str]:
        return iter(self._use())

    def __len__(self) -> int:
        return len(self._use())

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._use())

    def keys(self) -> KeysView[str]:
        return self._use().keys()

    def values(self) -> ValuesView[Any]:
        return self._hand_out_all().values()

    def items(self) -> ItemsView[str, Any]:
        return self._hand_out_all().items()

    def _hand_out(self, key: str, value: Any) -> None:
        if key in self._data:  # otherwise it is the default of get()
            self._tracked().watch(key, value)

    def _hand_out_all(self) -> Record:
        for key, value in self._use().items():
            if type(value) not in PLAIN:
                self._hand_out(key, value)
        return self._data

    # -- copies, which are dicts ----------------------------------------------------------

    def copy(self) -> Record:
        """Return a shallow copy, which is a ``dict``."""
        return dict(self)

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> Record:
        return copy.deepcopy(self._use(), memo)

    def __or__(self, other: Any) -> Any:
        return {**self, **other} if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Any) -> Any:
        return {**other, **self} if isinstance(other, Mapping) else NotImplemented

    # -- writing --------------------------------------------------------------------------

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str) or key.startswith(META):
            raise _refused(key)
        (self._data if self._phase is OPEN else self._use())[key] = value
        self._tracked().touched.add(key)

    def __ior__(self, other: Any) -> SessionMapping:
        self.update(other)
        return self

    def __delitem__(self, key: str) -> None:
        del self._use()[key]
        self._tracked().touched.add(key)

    def pop(self, key: str, default: Any = _REQUIRED) -> Any:
        data = self._use()
        if key not in data:
            if default is _REQUIRED:
                raise KeyError(key)
            return default
        self._tracked().touched.add(key)
        return data.pop(key)

    def popitem(self) -> tuple[str, Any]:
        key, value = self._use().popitem()
        self._tracked().touched.add(key)
        return key, value

    def clear(self) -> None:
        """Remove all keys, and unbind the session from its user.

        If nothing is added afterwards, the session is removed from the store.
        """
        data, tracker = self._use(), self._tracked()
        tracker.is_cleared = True
        tracker.touched.update(data)
        data.clear()
        if self._meta.pop(USER, None) is not None:
            tracker.touched.add(USER)

    def change(self, key: str, function: Callable[[Any], Any], default: Any = None) -> Any:
        """Replace a value by what a function returns for it; return the new value.

        If another request has saved the session in the meantime, the function runs again, on the
        value that the other request saved. It must therefore have no other effect than its result.
        It may change its argument and return it.

        If this request has set or deleted the key before, or sets or deletes it afterwards, the
        function does not run again. The same applies if this request changes the value in place.

        :param default: the function's argument if the session does not have the key.
        """
        if not isinstance(key, str) or key.startswith(META):
            raise _refused(key)
        value = self.get(key, REMOVED)
        self._tracked().before_operation(key, value)
        operation = Operation(function, default)
        result = self._data[key] = operation.apply(value)
        self._tracked().add_operation(key, operation, result)
        return result

    def incr(self, key: str, delta: float = 1) -> Any:
        """Add to a number, which is 0 if the session does not have it; return the sum.

        No addition is lost if several requests add at the same time. See :meth:`change`.

        :raises TypeError: the value or ``delta`` is not a number.
        """
        self._use()
        return self.change(key, addition(key, delta, self._tracked().codec), 0)

    def changed(self) -> None:
        """Mark the session as changed.

        A call is never necessary, because changes inside values are found without it.
        """
        self._use()
        self._tracked().is_forced = True

    # -- flash messages and CSRF tokens ---------------------------------------------------

    def flash(self, msg: Any, queue: str = "", allow_duplicate: bool = True) -> None:
        key = QUEUE + queue
        data = self._use()
        messages = data.get(key)
        if not isinstance(messages, list):
            messages = data[key] = []
        if not allow_duplicate:
            if msg in messages:
                return
            self._tracked().add_unique(key, msg)
        self._tracked().touched.add(key)
        messages.append(msg)
        if msg in self._tracked().popped.get(key, ()):
            self._meta[POPPED + queue] = os.urandom(4).hex()
            self._tracked().touched.add(POPPED + queue)

    def pop_flash(self, queue: str = "") -> list[Any]:
        key = QUEUE + queue
        if key not in self._use():
            return []
        found = self._data.pop(key)
        messages: list[Any] = found if isinstance(found, list) else []
        self._tracked().touched.add(key)
        self._tracked().add_popped(key, messages)
        if self._meta.pop(POPPED + queue, None) is not None:
            self._tracked().touched.add(POPPED + queue)
        return messages

    def peek_flash(self, queue: str = "") -> list[Any]:
        messages = self.get(QUEUE + queue)
        return messages if isinstance(messages, list) else []

    def new_csrf_token(self) -> str:
        token = self[CSRF_TOKEN] = random_id()
        return token

    def get_csrf_token(self) -> str:
        token = self.get(CSRF_TOKEN)
        if not isinstance(token, str):
            token = self[CSRF_TOKEN] = self._first_csrf_token()
        return token

    def _first_csrf_token(self) -> str:
        """Return the token of a session that has none."""
        raise NotImplementedError
