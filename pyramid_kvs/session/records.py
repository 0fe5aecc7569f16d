"""Session records: the flat dicts that are stored, and how they become data.

A record has the keys of the application, its flash queues, and metadata of the library.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any, TypeAlias

from ..exceptions import CodecError, SessionTooLarge
from ..kvs import KVS, Stored
from ..logs import ThrottledLog, fingerprint
from ..serializer import Data, JSONCodec, as_bytes

log = logging.getLogger("pyramid_kvs.session")

Record: TypeAlias = "dict[str, Any]"

#: The beginning of the keys of flash queues.
QUEUE = "_f_"
#: The beginning of the keys of metadata.
META = "__kvs_"
#: The beginning of the keys of marks: ``POPPED`` + queue has a random token if all messages of the
#: queue were popped, and a message equal to one of them was pushed. Without the mark, another
#: request could not distinguish the new message from the popped one.
POPPED = META + "popped_"
#: When the session began, in seconds since 1970. It identifies the session.
CREATED = META + "created"
#: The hash of the user to whom the session is bound.
USER = META + "user"
#: When the session was last entered in the index of its user, in seconds since 1970.
ENTERED = META + "user_at"
#: The epoch of the user, where there is no index.
EPOCH = META + "user_epoch"
#: When the cookie was last sent, in seconds since 1970.
SENT = META + "sent"
#: The key to which the session moved.
MOVED = META + "moved"
#: When the marker with the key ends, in seconds since 1970.
UNTIL = META + "until"

#: Of a record that is bound to a user, or is a marker. One search takes half the time of two.
_SPECIAL = re.compile(f"{USER}|{MOVED}")
_SPECIAL_IN_BYTES = re.compile(_SPECIAL.pattern.encode())

#: The year 10000, which is the first that ``datetime`` does not know.
_LATEST = 253402300800


def number(value: Any) -> float:
    """Return a number that is not negative, which the codec may have turned into a string.

    :raises ValueError, TypeError, ArithmeticError: it is not one, or is out of range.
    """
    if type(value) is not int and type(value) is not float:
        if isinstance(value, bool):
            raise ValueError("not a number")
        value = float(value)
        value = int(value) if value.is_integer() else value
    if not 0 <= value < 2**63:
        raise ValueError("out of range")
    return value  # type: ignore[no-any-return]


def _time(value: Any) -> float:
    seconds = number(value)
    if seconds >= _LATEST:
        raise ValueError("not a time")
    return seconds


def _text(value: Any) -> str:
    text = value.decode() if isinstance(value, bytes) else value
    if not isinstance(text, str):
        raise ValueError("not a string")
    return text


#: How the value of each key of metadata is read; an error means that the value is not valid.
METADATA: dict[str, Callable[[Any], Any]] = {
    CREATED: _time,
    USER: _text,
    ENTERED: _time,
    EPOCH: number,
    SENT: _time,
    MOVED: _text,
    UNTIL: _time,
}
#: Keys that few records have.
_LESS_COMMON = METADATA.keys() - {CREATED}


def check_metadata(record: Record) -> None:
    """Give the metadata of a new record the right types, whatever the codec made of them.

    Some codecs turn numbers into strings, and strings into bytes.

    :raises ValueError, TypeError, ArithmeticError: a value cannot be what its key says.
    """
    for key in METADATA.keys() & record.keys():
        record[key] = METADATA[key](record[key])


def take_metadata(record: Record) -> Record:
    """Remove the metadata from a record, and return them."""
    if CREATED in record and "\n".join(record).count(META) == 1:
        return {CREATED: record.pop(CREATED)}  # nearly every record
    return {key: record.pop(key) for key in list(record) if key[:6] == META}


def created_at(record: Record) -> float | None:
    """Return when a session began, in seconds since 1970; ``None`` if the record lacks it."""
    return record.get(CREATED)


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
        self._has_string_keys = isinstance(driver.codec, JSONCodec)
        self._max_bytes = max_bytes
        self._prefix = len(driver.key_prefix)
        self._undecodable = ThrottledLog(log)
        self._shows_keys = _contains(self.dumps({USER: ""}), USER)

    def decode(self, data: Data) -> Record | None:
        """Decode a record; return ``None`` if it does not decode or is not a session.

        A session is a dict with strings as keys, whose metadata can be read.
        """
        loads = self._loads
        try:
            record = loads(data)
            if not isinstance(record, dict):
                return None
            if not self._has_string_keys and not all(isinstance(key, str) for key in record):
                return None
            created = record.get(CREATED, 0.0)
            is_usual = type(created) is float and 0 <= created < _LATEST
            if not is_usual or not _LESS_COMMON.isdisjoint(record):
                check_metadata(record)
        except (CodecError, ValueError, TypeError, ArithmeticError):
            return None
        return record

    def is_plain(self, stored: Stored) -> bool:
        """Return whether a record cannot be a marker or bound to a user, without decoding it."""
        data = stored.data
        special = _SPECIAL if isinstance(data, str) else _SPECIAL_IN_BYTES
        return self._shows_keys and special.search(data) is None  # type: ignore[arg-type]

    def may_have(self, stored: Stored, key: str) -> bool:
        """Return whether a record may have a key, without decoding it."""
        return not self._shows_keys or _contains(stored.data, key)

    def warn_of_undecodable(self, key: str) -> None:
        """Log that a record does not decode, once a minute for all records."""
        self._undecodable.warning(
            "the stored session %s does not decode; a new one takes its place", fingerprint(key)
        )

    def encode(self, key: str, record: Record) -> Data:
        """Return the data of a record.

        :param key: of the record, which counts for its size.
        :raises TypeError: the codec cannot write a value. The message names the value's key.
        :raises SessionTooLarge: the session is larger than ``max_bytes``.
        """
        dumps = self.dumps
        try:
            data = dumps(record)
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


def _contains(data: Data, key: str) -> bool:
    return key in data if isinstance(data, str) else key.encode() in data


def is_same(one: Data | None, other: Data | None) -> bool:
    """Return whether two data are the same in the store; ``None`` means no data."""
    if type(one) is type(other):
        return one == other
    if one is None or other is None:
        return False
    if isinstance(one, str):  # what is to be saved, without a call of as_bytes
        return one.encode("utf-8", "surrogatepass") == other
    return one == as_bytes(other)
