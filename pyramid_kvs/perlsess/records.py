"""The values in stored data: how they are read, and changed without losing what Perl stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias

from .. import storable
from ..exceptions import CodecError
from ..kvs import Stored
from ..serializer import Codec, StorableCodec, as_bytes
from ..storable.editor import REMOVED, Changes, Key, edit_hash, read_hash
from .formats import CACHE_OBJECT, Wrapping, unwrap, wrap

__all__ = ["REMOVED", "Changes", "Key", "Record", "Records", "Values", "choose_records"]

Values: TypeAlias = "dict[Key, Any]"

_DATA = "_Data"
_EXPIRES = "_Expires_At"


@dataclass
class Record:
    """One stored session.

    ``objects`` are the lists and dicts that represent objects of Perl classes, by ``id``.
    ``cache_object`` is the Cache::Object that contains the session, if there is one.
    """

    stored: Stored
    wrapping: Wrapping
    image: bytes
    values: Values
    objects: dict[int, Any] = field(default_factory=dict)
    cache_object: Values | None = None

    def is_expired(self, now: float) -> bool:
        """Return whether the session has expired, although the store still has it.

        CHI, Cache::Cache and CGI::Session note the expiry in the data and check it when they read.
        A session that has expired in Perl must not be a login here.
        """
        ends = (self.wrapping.expires, self._object_end(), self._idle_end())
        return any(end is not None and end <= now for end in ends)

    def _object_end(self) -> float | None:
        if self.cache_object is None:
            return None
        return _number(_member(self.cache_object, _EXPIRES))

    def _idle_end(self) -> float | None:
        used = _number(_member(self.values, "_SESSION_ATIME"))
        lifetime = _number(_member(self.values, "_SESSION_ETIME"))
        return used + lifetime if used is not None and lifetime else None

    def visible_values(self, now: float) -> Values:
        """Return a copy of the values, without those that CGI::Session would drop."""
        expired = self.expired_keys(now)
        return {key: value for key, value in self.values.items() if key not in expired}

    def expired_keys(self, now: float) -> set[Key]:
        """Return the keys whose own lifetime, ``expire(name, time)`` of CGI::Session, is over."""
        used = _number(_member(self.values, "_SESSION_ATIME"))
        listed = _member(self.values, "_SESSION_EXPIRE_LIST")
        if used is None or not isinstance(listed, dict):
            return set()
        # Many keys can have one long string as their lifetime: each value is converted once.
        values = {id(lifetime): lifetime for lifetime in listed.values()}
        lifetimes = {place: _number(lifetime) for place, lifetime in values.items()}
        by_key = {key: lifetimes[id(lifetime)] for key, lifetime in listed.items()}
        return {key for key, lifetime in by_key.items() if lifetime and used + lifetime <= now}


def _member(values: Mapping[Key, Any], name: str) -> Any:
    """Return the value of a key. The key is bytes if ``encoding`` is null."""
    return values.get(name, values.get(name.encode()))


def _number(value: Any) -> float | None:
    """Return a number, which Perl may have stored as a string, or ``None`` for other values."""
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

        :raises CodecError: the data cannot be decoded, or their root is not a hash.
        """

    def read_again(self, record: Record) -> Values:
        """Return the values of a record as they were read, without changes to lists and dicts."""

    def edit(self, record: Record, changes: Changes, wrapping: Wrapping) -> tuple[bytes, int]:
        """Return data and flags of a record with changes.

        :raises CodecError: a value cannot be written.
        """


def choose_records(codec: Codec, options: Mapping[str, Any]) -> Records:
    """Return what reads and edits the sessions of a codec.

    :param options: the checked options of ``kvs.perlsess``.
    """
    format_name, max_bytes = options["format"], options["max_bytes"]
    if isinstance(codec, StorableCodec):
        return StorableRecords(options["encoding"], format_name, max_bytes, options["write_text"])
    return CodecRecords(codec, format_name, max_bytes)


class StorableRecords:
    """Sessions that are Storable images. Pairs that did not change keep their bytes.

    :param encoding: the encoding of strings without Perl's UTF-8 flag.
    :param format_name: one of :data:`pyramid_kvs.perlsess.formats.FORMATS`.
    :param max_bytes: the maximum size of an image.
    :param write_text: with ``"bytes"``, strings are written in this encoding, without the flag.
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
        image, wrapping = unwrap(data, stored.flags, self._format, self._max_bytes)
        objects: dict[int, Any] = {}
        cache_objects: dict[int, Any] = {}
        root = self._thaw(image, objects, cache_objects)
        cache_object = self._cache_object(root, cache_objects)
        values = root if cache_object is None else _member(cache_object, _DATA)
        return Record(stored, wrapping, image, _checked(values), objects, cache_object)

    def _thaw(self, image: bytes, objects: dict[int, Any], cache_objects: dict[int, Any]) -> Any:
        def note(class_name: str, value: Any) -> Any:
            if isinstance(value, (dict, list)):
                objects[id(value)] = value
                if class_name == CACHE_OBJECT:
                    cache_objects[id(value)] = value
            return value

        return storable.thaw(image, encoding=self._encoding, blessed=note, max_size=self._max_bytes)

    def _cache_object(self, root: Any, cache_objects: dict[int, Any]) -> Values | None:
        """Return the Cache::Object in the data of Cache::FileCache: ``[key, object]``."""
        if self._format in ("auto", "cache-object") and isinstance(root, list) and len(root) == 2:
            found = cache_objects.get(id(root[1]))
            if isinstance(found, dict):
                return found
        if self._format == "cache-object":
            raise CodecError("stored session is not an object of Cache::FileCache")
        return None

    def read_again(self, record: Record) -> Values:
        root = storable.thaw(record.image, encoding=self._encoding, max_size=self._max_bytes)
        return _checked(root if record.cache_object is None else _member(root[1], _DATA))

    def edit(self, record: Record, changes: Changes, wrapping: Wrapping) -> tuple[bytes, int]:
        member = None if record.cache_object is None else _DATA.encode()
        image = read_hash(record.image, self._encoding, member)
        objects = {**changes.objects, **record.objects}
        changes = replace(changes, objects=objects, text_codec=self._text_codec)
        return wrap(edit_hash(image, changes, record.values), wrapping)


class CodecRecords:
    """Sessions of another codec, for example JSON."""

    def __init__(self, codec: Codec, format_name: str, max_bytes: int) -> None:
        self._codec = codec
        self._format = format_name
        self._max_bytes = max_bytes

    def read(self, stored: Stored) -> Record:
        data = as_bytes(stored.data)
        image, wrapping = unwrap(data, stored.flags, self._format, self._max_bytes)
        return Record(stored, wrapping, image, _checked(self._codec.loads(image)))

    def read_again(self, record: Record) -> Values:
        return _checked(self._codec.loads(record.image))

    def edit(self, record: Record, changes: Changes, wrapping: Wrapping) -> tuple[bytes, int]:
        values = {key: changes.values.get(key, value) for key, value in record.values.items()}
        values.update(changes.values)
        kept = {key: value for key, value in values.items() if value is not REMOVED}
        return wrap(as_bytes(self._codec.dumps(kept)), wrapping)


def _checked(values: Any) -> Values:
    if not isinstance(values, dict):
        raise CodecError("the root of the stored session is not a hash")
    return values
