"""Codecs by name: how values become bytes, and back.

A codec is an object with ``dumps(value)`` and ``loads(data)``. ``dumps`` returns ``str`` or
``bytes``; ``loads`` takes either and raises :class:`~pyramid_kvs.exceptions.CodecError` for what
it cannot read. A codec sees no store, and a driver sees no value.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import json.encoder
import logging
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

from .exceptions import CodecError
from .logs import ThrottledLog
from .messages import quoted, unknown_name

__all__ = ["Codec", "Data", "names", "register", "serializer"]

log = logging.getLogger("pyramid_kvs.serializer")

Data: TypeAlias = "str | bytes"


@runtime_checkable
class Codec(Protocol):
    """Turns a value into stored data, and back."""

    def dumps(self, value: Any) -> Data: ...

    def loads(self, data: Any) -> Any: ...


def as_bytes(data: Data) -> bytes:
    """Return stored data as the bytes that go over the wire."""
    return data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data


def _writer(encoder: json.JSONEncoder) -> Callable[[Any, int], Iterable[str]]:
    """Return the function that ``encoder.encode`` makes for each value, and then calls.

    It looks for no circular reference, which raises ``RecursionError`` instead.
    """
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    escape: Any = json.encoder.encode_basestring_ascii
    if make is None:  # another Python than CPython
        return encoder.iterencode  # type: ignore[return-value]
    options = (None, ": ", ", ", False, False, True)  # indent, separators, ..., allow_nan
    return make(None, encoder.default, escape, *options)  # type: ignore[no-any-return]


class JSONCodec:
    """JSON as ``json.dumps`` writes it by default: ASCII-escaped, ``", "`` and ``": "``.

    ``json.dumps`` and ``json.loads`` spend a third of their time around the parts in C, so these
    are called first, and the whole functions only for what the parts do not answer.
    """

    _encode = staticmethod(json.JSONEncoder().encode)
    _decode = staticmethod(json.JSONDecoder().decode)
    _write = staticmethod(_writer(json.JSONEncoder()))
    _escape = staticmethod(json.encoder.encode_basestring_ascii)
    _scan = staticmethod(json.JSONDecoder().scan_once)  # type: ignore[attr-defined]

    def dumps(self, value: Any) -> str:
        if type(value) is str:  # such as a rendered page, and without an encoder
            return self._escape(value)
        try:
            return "".join(self._write(value, 0))
        except RecursionError:
            return self._encode(value)  # raises another error for a circular reference

    def loads(self, data: Data) -> Any:
        try:
            text = data if isinstance(data, str) else data.decode()
            try:
                value, end = self._scan(text, 0)
            except StopIteration:  # white space before the value, or no value
                return self._decode(text)
            return value if end == len(text) else self._decode(text)
        except (ValueError, RecursionError) as error:
            raise CodecError(f"stored data is not JSON: {type(error).__name__}") from error


class FastJSONCodec(JSONCodec):
    """Reads with msgspec, which takes half of the time, and writes the same.

    What msgspec reads, it reads as the standard library does: integers of any length, floats, the
    last one of duplicate keys. It refuses NaN, infinite numbers, lone surrogates and very long
    integers, which the standard library then reads. Other fast parsers, such as orjson, turn
    integers above 64 bits into floats.
    """

    _exact = JSONCodec.loads

    def __init__(self) -> None:
        import msgspec

        self._read = msgspec.json.Decoder().decode
        self._refusals = (msgspec.DecodeError, UnicodeError, RecursionError)

    def loads(self, data: Data) -> Any:
        read = self._read
        try:
            return read(data)
        except self._refusals:
            return self._exact(data)


def _json() -> Codec:
    try:
        return FastJSONCodec()
    except ImportError:
        return JSONCodec()


class UnsignedData(CodecError):
    """The data has no signature, so that it may not be read in any other way either."""


class PickleCodec:
    """Pickles, signed with HMAC-SHA-256 if there are secrets.

    :param secrets: newest first. The first one signs, and every one verifies.
    :param unsigned: whether unsigned pickles load although there are secrets.
    """

    _MAGIC = b"\x01kvs-signed:"

    def __init__(self, secrets: Sequence[str] = (), unsigned: bool = False) -> None:
        self._secrets = [secret.encode() for secret in secrets]
        self._unsigned = unsigned or not secrets

    def dumps(self, value: Any) -> bytes:
        try:
            payload: bytes = pickle.dumps(value)
        except (pickle.PicklingError, AttributeError) as error:
            raise TypeError(f"the value cannot be pickled: {error}") from error
        if not self._secrets:
            return payload
        return self._MAGIC + self._sign(self._secrets[0], payload) + payload

    def loads(self, data: Data) -> Any:
        try:
            payload = self._verified(data.encode("latin-1") if isinstance(data, str) else data)
        except UnicodeEncodeError as error:
            raise CodecError("stored data is a string, not a pickle") from error
        try:
            return pickle.loads(payload)  # noqa: S301 (only if configured)
        except Exception as error:  # a pickle can raise whatever its classes raise
            raise CodecError(f"stored data does not unpickle: {type(error).__name__}") from error

    @staticmethod
    def _sign(secret: bytes, payload: bytes) -> bytes:
        return hmac.new(secret, payload, hashlib.sha256).digest()

    def _verified(self, data: bytes) -> bytes:
        if not data.startswith(self._MAGIC):
            if self._unsigned:
                return data
            raise UnsignedData("stored pickle is not signed, and a secret is configured")
        start = len(self._MAGIC) + 32
        signature, payload = data[len(self._MAGIC) : start], data[start:]
        for secret in self._secrets:
            if hmac.compare_digest(signature, self._sign(secret, payload)):
                return payload
        raise CodecError("stored pickle has a signature that no configured secret made")


class StorableCodec:
    """Perl's Storable: writes network images, reads every form.

    :param encoding: of strings that Perl does not flag as UTF-8; see ``storable.thaw``.
    """

    def __init__(self, encoding: str | None = "utf-8") -> None:
        self._encoding = encoding

    def dumps(self, value: Any) -> bytes:
        from .storable import StorableError, nfreeze

        try:
            return nfreeze(value)
        except StorableError as error:
            raise TypeError(str(error)) from error

    def loads(self, data: Data) -> Any:
        from .storable import thaw

        return thaw(as_bytes(data), encoding=self._encoding)


class FallbackCodec:
    """Writes with one codec; reads with it, and with a second one what the first cannot read."""

    def __init__(self, codec: Codec, fallback: Codec, fallback_name: str) -> None:
        self.dumps = codec.dumps
        self._loads = codec.loads
        self._fallback = fallback
        self._name = fallback_name
        self._log = ThrottledLog(log, interval=float("inf"))

    def loads(self, data: Data) -> Any:
        try:
            return self._loads(data)
        except CodecError as error:
            try:
                value = self._fallback.loads(data)
            except CodecError:
                raise error from None
        self._log.warning(
            "a stored value was read with the fallback codec %r; remove fallback_codec "
            "when no such values are left",
            self._name,
        )
        return value


class CheckedCodec:
    """An application's codec; whatever it raises for data becomes a ``CodecError``."""

    def __init__(self, codec: Codec) -> None:
        self.dumps = codec.dumps
        self._loads = codec.loads

    def loads(self, data: Data) -> Any:
        try:
            return self._loads(data)
        except CodecError:
            raise
        except Exception as error:
            raise CodecError(f"stored data does not decode: {type(error).__name__}") from error


_BUILT_IN: dict[str, Codec] = {
    "json": _json(),
    "pickle": PickleCodec(),
    "storable": StorableCodec(),
}
_registered: dict[str, Codec] = {}


def register(name: str, codec: Codec) -> None:
    """Make a codec known under a name, in this process.

    :param codec: an object with ``dumps(value)`` and ``loads(data)``; a module will do.
    :raises TypeError: it has no such methods.
    """
    _registered[name] = checked(codec)


def checked(codec: object) -> Codec:
    """Return a codec whose ``loads`` raises only ``CodecError``.

    :raises TypeError: the object has no ``dumps`` and ``loads``.
    """
    if isinstance(codec, (JSONCodec, PickleCodec, StorableCodec, FallbackCodec, CheckedCodec)):
        return codec
    if not isinstance(codec, Codec):
        raise TypeError(f"a codec needs dumps(value) and loads(data); {quoted(codec)} lacks them")
    return CheckedCodec(codec)


def names(extra: Mapping[str, Codec] | None = None) -> list[str]:
    """Return the names of all known codecs, sorted."""
    return sorted({*_BUILT_IN, *_registered, *(extra or ())})


def serializer(name: str, extra: Mapping[str, Codec] | None = None) -> Codec:
    """Return the codec of that name.

    :param extra: codecs that take precedence over those of the process, by name.
    :raises LookupError: no codec has the name; the message lists the known ones.
    """
    for known in (extra or {}, _registered, _BUILT_IN):
        if name in known:
            return checked(known[name])
    raise LookupError(unknown_name("codec", name, names(extra)))


def build(
    name: str,
    *,
    fallback: str | None = None,
    secrets: Sequence[str] = (),
    encoding: str | None = "utf-8",
    extra: Mapping[str, Codec] | None = None,
) -> Codec:
    """Return the codec that the options of a setting describe.

    :param fallback: the name of a codec for data that the first one cannot read.
    :param secrets: sign pickles; newest first.
    :param encoding: of Perl's unflagged strings.
    """
    codec = _with_options(name, secrets, False, encoding, extra)
    if fallback is None:
        return codec
    return FallbackCodec(codec, _with_options(fallback, secrets, True, encoding, extra), fallback)


def _with_options(
    name: str,
    secrets: Sequence[str],
    unsigned: bool,
    encoding: str | None,
    extra: Mapping[str, Codec] | None,
) -> Codec:
    codec = serializer(name, extra)
    made: dict[type, Callable[[], Codec]] = {
        PickleCodec: lambda: PickleCodec(secrets, unsigned),
        StorableCodec: lambda: StorableCodec(encoding),
    }
    make = made.get(type(codec))
    return make() if make else codec
