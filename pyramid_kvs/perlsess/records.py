"""A Perl session as a store holds it, and the values in it: read, and edited in its own form."""

from __future__ import annotations

import marshal
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from .. import storable
from ..exceptions import CodecError
from ..serializer import Codec, StorableCodec, as_bytes
from ..storable.editor import REMOVED, Changes, Key, edit_hash, read_hash
from .formats import CACHE_OBJECT, Form, unwrap, wrap

if TYPE_CHECKING:
    from ..kvs import Stored

__all__ = ["REMOVED", "Changes", "Key", "Record", "Records", "Values", "records"]

Values: TypeAlias = "dict[Key, Any]"

_DATA = "_Data"
_EXPIRES = "_Expires_At"


@dataclass
class Record:
    """One stored session.

    ``objects`` are the lists and dicts that stand for objects of Perl classes, by ``id``;
    ``wrapper`` is the Cache::Object that the session is a member of.
    """

    stored: Stored
    form: Form
    image: bytes
    values: Values
    objects: dict[int, Any] = field(default_factory=dict)
    wrapper: dict[Key, Any] | None = None

    def is_expired(self, now: float) -> bool:
        """Return whether the session is over, though the store still has it.

        CHI, Cache::Cache and CGI::Session note the end in what they store and look at it when
        they read: what Perl takes for gone must not be a login here.
        """
        ends = (self.form.expires, self._object_end(), self._idle_end())
        return any(end is not None and end <= now for end in ends)

    def expired_keys(self, now: float) -> set[Key]:
        """Return the keys to which CGI::Session's ``expire(name, time)`` gave a shorter life."""
        used = _number(_member(self.values, "_SESSION_ATIME"))
        lives = _member(self.values, "_SESSION_EXPIRE_LIST")
        if used is None or not isinstance(lives, dict):
            return set()
        ends = {key: _number(life) for key, life in lives.items()}
        return {key for key, life in ends.items() if life and used + life <= now}

    def _object_end(self) -> float | None:
        return None if self.wrapper is None else _number(_member(self.wrapper, _EXPIRES))

    def _idle_end(self) -> float | None:
        used = _number(_member(self.values, "_SESSION_ATIME"))
        life = _number(_member(self.values, "_SESSION_ETIME"))
        return used + life if used is not None and life else None


def _member(values: Mapping[Key, Any], name: str) -> Any:
    """Return the value of a key, which is bytes where ``encoding`` is null."""
    return values.get(name, values.get(name.encode()))


def _number(value: Any) -> float | None:
    """Return a number that Perl may have stored as text; ``None``: it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str, bytes)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


class Records(Protocol):
    """Reads and edits the sessions of one site."""

    def read(self, stored: Stored) -> Record:
        """Return the session in stored data.

        :raises CodecError: there is none, or no hash at its root.
        """

    def read_again(self, record: Record) -> Values:
        """Return the values of a record anew: lists and dicts that nobody could have changed."""

    def edit(self, record: Record, changes: Changes, form: Form) -> tuple[bytes, int]:
        """Return data and flags of a record with changes.

        :raises CodecError: a value cannot be written.
        """


def records(codec: Codec, options: Mapping[str, Any]) -> Records:
    """Return what reads sessions that a codec wrote and Perl's modules wrapped.

    :param options: the checked options of ``kvs.perlsess``.
    """
    format_name, max_bytes = options["format"], options["max_bytes"]
    if isinstance(codec, StorableCodec):
        return StorableRecords(options["encoding"], format_name, max_bytes, options["write_text"])
    return CodecRecords(codec, format_name, max_bytes)


class StorableRecords:
    """Sessions that are Storable images: what did not change keeps its bytes.

    :param encoding: of strings without Perl's UTF-8 flag.
    :param format_name: of :data:`pyramid_kvs.perlsess.formats.FORMATS`.
    :param max_bytes: the most bytes that an image may have.
    :param write_text: ``"bytes"``: text is written in that encoding, without the flag.
    """

    def __init__(
        self, encoding: str | None, format_name: str, max_bytes: int, write_text: str
    ) -> None:
        self._encoding = encoding
        self._format = format_name
        self._max_bytes = max_bytes
        self._text_codec = (encoding or "utf-8") if write_text == "bytes" else None

    def read(self, stored: Stored) -> Record:
        data = as_bytes(stored.data)
        image, form = unwrap(data, stored.flags, self._format, self._max_bytes)
        objects: dict[int, Any] = {}
        wrappers: dict[int, Any] = {}
        root = self._thaw(image, objects, wrappers)
        wrapper = self._wrapper(root, wrappers)
        values = root if wrapper is None else _member(wrapper, _DATA)
        return Record(stored, form, image, _hash(values), objects, wrapper)

    def _thaw(self, image: bytes, objects: dict[int, Any], wrappers: dict[int, Any]) -> Any:
        def note(class_name: str, value: Any) -> Any:
            if isinstance(value, (dict, list)):
                objects[id(value)] = value
                if class_name == CACHE_OBJECT:
                    wrappers[id(value)] = value
            return value

        return storable.thaw(image, encoding=self._encoding, blessed=note, max_size=self._max_bytes)

    def _wrapper(self, root: Any, wrappers: dict[int, Any]) -> dict[Key, Any] | None:
        """Return the Cache::Object in what Cache::FileCache stores: ``[key, object]``."""
        if self._format in ("auto", "cache-object") and isinstance(root, list) and len(root) == 2:
            found = wrappers.get(id(root[1]))
            if isinstance(found, dict):
                return found
        if self._format == "cache-object":
            raise CodecError("stored session is not what Cache::FileCache writes")
        return None

    def read_again(self, record: Record) -> Values:
        root = storable.thaw(record.image, encoding=self._encoding, max_size=self._max_bytes)
        return _hash(root if record.wrapper is None else _member(root[1], _DATA))

    def edit(self, record: Record, changes: Changes, form: Form) -> tuple[bytes, int]:
        member = None if record.wrapper is None else _DATA.encode()
        image = read_hash(record.image, self._encoding, member)
        objects = {**changes.objects, **record.objects}
        changes = replace(changes, objects=objects, text_codec=self._text_codec)
        return wrap(edit_hash(image, changes, record.values), form)


class CodecRecords:
    """Sessions that another codec wrote, JSON for example."""

    def __init__(self, codec: Codec, format_name: str, max_bytes: int) -> None:
        self._codec = codec
        self._format = format_name
        self._max_bytes = max_bytes

    def read(self, stored: Stored) -> Record:
        data = as_bytes(stored.data)
        image, form = unwrap(data, stored.flags, self._format, self._max_bytes)
        return Record(stored, form, image, _hash(self._codec.loads(image)))

    def read_again(self, record: Record) -> Values:
        return _hash(self._codec.loads(record.image))

    def edit(self, record: Record, changes: Changes, form: Form) -> tuple[bytes, int]:
        values = {key: changes.values.get(key, value) for key, value in record.values.items()}
        values.update(changes.values)
        kept = {key: value for key, value in values.items() if value is not REMOVED}
        return wrap(as_bytes(self._codec.dumps(kept)), form)


def _hash(values: Any) -> Values:
    if not isinstance(values, dict):
        raise CodecError("stored session has no hash at its root")
    return values


# -- what changed ----------------------------------------------------------------------------


def fast_snapshot(value: Any) -> bytes | None:
    """Return bytes that are equal only for equal values; ``None``: the value has none."""
    try:
        return marshal.dumps(value)
    except ValueError:
        return None


def is_same(one: Any, other: Any) -> bool:
    """Return whether two values are the same data: of the same types, however deep or cyclic.

    The order of a dict's keys does not count, as in Perl; a NaN is the same as another.
    """
    todo, seen = [(one, other)], set()
    while todo:
        left, right = todo.pop()
        if type(left) is not type(right):
            return False
        if isinstance(left, (dict, list)):
            if (id(left), id(right)) in seen:
                continue
            seen.add((id(left), id(right)))
            if len(left) != len(right):
                return False
            if isinstance(left, list):
                todo.extend(zip(left, right, strict=True))
            elif left.keys() != right.keys():
                return False
            else:
                todo.extend((left[key], right[key]) for key in left)
        elif not (left == right or (left != left and right != right)):
            return False
    return True
