"""Session records: the flat dicts that are stored, and how they become data.

A record has the keys of the application, its flash queues, and metadata of the library.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

from ..exceptions import CodecError, SessionTooLarge
from ..kvs import KVS
from ..serializer import Data, as_bytes

Record: TypeAlias = "dict[str, Any]"

#: The beginning of the keys of flash queues.
QUEUE = "_f_"
#: The beginning of the keys of metadata.
META = "__kvs_"
CREATED = META + "created"
USER = META + "user"


def created_at(record: Record) -> float | None:
    """Return when a session began, in seconds since 1970; ``None`` if the record lacks it."""
    created: Any = record.get(CREATED)
    if type(created) in (int, float) and math.isfinite(created):
        return float(created)
    return None


def is_empty(record: Record) -> bool:
    return all(name[:6] == META and name != USER for name in record)


def is_ended(before: Record, now: Record) -> bool:
    """Return whether a record in the store does not continue the session that was read before.

    The logout of 1.0 stores ``{}``. A header's token may have begun another session in the
    meantime. A record without its time of creation is a continuation: a 1.0 worker saved what it
    had read before 2.0 added the time.
    """
    if before and not now:
        return True
    return CREATED in before and now.get(CREATED, before[CREATED]) != before[CREATED]


class RecordCodec:
    """Turns records into data and back.

    :param max_bytes: the maximum size of a session, with its key.
    """

    def __init__(self, driver: KVS, max_bytes: int) -> None:
        self.dumps = driver.codec.dumps
        self._loads = driver.codec.loads
        self._max_bytes = max_bytes
        self._prefix = len(driver.key_prefix)

    def decode(self, data: Data) -> Record | None:
        """Decode a record; return ``None`` if it does not decode or is not a dict."""
        try:
            record = self._loads(data)
        except CodecError:
            return None
        return record if isinstance(record, dict) else None

    def encode(self, key: str, record: Record) -> Data:
        """Return the data of a record.

        :param key: of the record, which counts for its size.
        :raises TypeError: the codec cannot write a value. The message names the value's key.
        :raises SessionTooLarge: the session is larger than ``max_bytes``.
        """
        try:
            data = self.dumps(record)
        except Exception as error:
            raise self._unwritable(record, error) from error
        size = len(data) if isinstance(data, bytes) or data.isascii() else len(as_bytes(data))
        if size + len(key) + self._prefix > self._max_bytes:
            limit = f"{self._max_bytes} (max_bytes) less its key"
            raise self.too_large(record, f"has {size} bytes, more than {limit}")
        return data

    def _unwritable(self, record: Record, error: Exception) -> TypeError:
        for key, value in record.items():
            if not self._is_writable(key, value):
                return TypeError(
                    f"session key {key!r}: the codec cannot write this "
                    f"{type(value).__name__}: {error}"
                )
        return TypeError(f"the codec cannot write the session: {error}")

    def _is_writable(self, key: str, value: Any) -> bool:
        try:
            self.dumps({key: value})
        except Exception:  # noqa: BLE001  # each codec raises errors of another kind
            return False
        return True

    def too_large(self, record: Record, problem: str) -> SessionTooLarge:
        """Return the error for a record that is too large, with its largest keys."""
        sizes = {key: len(self.dumps({key: value})) for key, value in record.items()}
        largest = sorted(sizes, key=lambda key: -sizes[key])[:3]
        shown = ", ".join(f"{key!r} ({sizes[key]} bytes)" for key in largest)
        return SessionTooLarge(f"the session {problem}; its largest keys: {shown}")


def is_same(one: Data | None, other: Data | None) -> bool:
    """Return whether two data are the same in the store; ``None`` means no data."""
    if one is other or one is None or other is None:
        return one is other
    return one == other if type(one) is type(other) else as_bytes(one) == as_bytes(other)
