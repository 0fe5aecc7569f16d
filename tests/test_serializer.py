"""Codecs. Stored data runs code only if the application configured pickle."""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyramid_kvs import serializer as codecs
from pyramid_kvs.exceptions import CodecError, KVSError
from pyramid_kvs.kvs import KVS
from pyramid_kvs.serializer import FastJSONCodec, JSONCodec, build, register, serializer


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


class Words(str):
    """A string of a library, as ``markupsafe.Markup``."""


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**63)
    | st.floats(allow_nan=False)
    | st.text(st.characters())  # lone surrogates too
    | st.text().map(Words)
)
#: With msgspec, which the tests install, and without it.
JSON_CODECS = [JSONCodec(), FastJSONCodec()]

KEYS = st.text(st.characters()) | st.integers() | st.booleans() | st.none() | st.floats()


@given(st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner)))
def test_json_is_what_json_dumps_writes(value: Any) -> None:
    data = json.dumps(value)
    read = repr(json.loads(data))  # 1 is not True, and NaN is a value
    for codec in JSON_CODECS:
        assert codec.dumps(value) == data
        for stored in (data, data.encode(), f" {data}\n"):
            assert repr(codec.loads(stored)) == read


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), {"a": (1, [2])}])
def test_json_writes_what_is_outside_of_the_standard(value: Any) -> None:
    assert serializer("json").dumps(value) == json.dumps(value)


#: What parsers read differently.
ODD = ["NaN", "-Infinity", '{"a": 1, "a": 2}', "1.0", "-0", "-0.0", "1e400", "1e-400", '"\\ud800"']
ODD += ["1" * 30, "9007199254740993.0", "1e23", "2.2250738585072011e-308", '"\\ud83d\\ude00"']
ODD += ["[" * 900 + "]" * 900, "[" * 1200 + "]" * 1200, '"\x7f\u2028"']


@pytest.mark.parametrize("codec", JSON_CODECS)
@pytest.mark.parametrize("data", ODD)
def test_json_reads_what_json_loads_reads(codec: JSONCodec, data: str) -> None:
    assert same(codec, data)
    assert same(codec, data.encode())


def same(codec: JSONCodec, data: str | bytes) -> bool:
    """Return whether a codec reads what the standard library reads, or refuses it too."""
    try:
        expected = repr(json.loads(data if isinstance(data, str) else data.decode()))
    except (ValueError, RecursionError):
        with pytest.raises(CodecError):
            codec.loads(data)
        return True
    return repr(codec.loads(data)) == expected


JSON_TEXT = st.text('{}[]",:0123456789.eE+-\\ntrufalsNIiy \t\n\x00é')


@given(
    st.sampled_from([b'{"a": [1, 2.5, null, "\\u00e9"]}', b"-1.5e3", b'"x"']), JSON_TEXT, st.data()
)
def test_json_that_was_damaged_is_read_as_json_loads_does(
    data: bytes, piece: str, draw: st.DataObject
) -> None:
    """A parser that is less strict would return a value where the other one refuses."""
    place = draw.draw(st.integers(0, len(data)))
    end = draw.draw(st.integers(place, len(data)))
    damaged = data[:place] + (piece.encode() or draw.draw(st.binary(max_size=3))) + data[end:]
    for codec in JSON_CODECS:
        assert same(codec, damaged)


def test_json_is_read_without_msgspec() -> None:
    code = """
import sys
sys.modules["msgspec"] = None
from pyramid_kvs.serializer import FastJSONCodec, serializer
assert not isinstance(serializer("json"), FastJSONCodec)
assert serializer("json").loads('[1, NaN]')[0] == 1
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert isinstance(serializer("json"), FastJSONCodec)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def circular() -> Any:
    value: list[Any] = []
    value.append({"a": value})
    return value


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, {(1, 2): 3}, [{"a": b"bytes"}], circular(), nested(100_000)]
)
def test_json_refuses_what_json_dumps_refuses(value: Any) -> None:
    with pytest.raises((TypeError, ValueError, RecursionError)) as expected:
        json.dumps(value)
    with pytest.raises(expected.type, match=re.escape(str(expected.value).partition("\n")[0])):
        serializer("json").dumps(value)


@pytest.mark.parametrize(
    "data", ["", "{", "[1] 2", "\ufeff1", b"\xff", b"\x80\x04K\x01.", "[" * 100_000, "1" * 5000]
)
def test_data_that_is_not_json_is_a_codec_error(data: Any) -> None:
    with pytest.raises(CodecError) as info:
        serializer("json").loads(data)
    assert isinstance(info.value, KVSError)
    assert isinstance(info.value, ValueError)
    assert len(str(info.value)) < 100


def test_unknown_codec() -> None:
    with pytest.raises(LookupError, match=r"unknown codec 'jason' \(known: json, pickle, storable"):
        serializer("jason")


def test_register(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "_registered", {})

    class Fails:
        def dumps(self, value: Any) -> str:
            return "x"

        def loads(self, data: Any) -> Any:
            raise KeyError(data)

    register("fails", Fails())
    with pytest.raises(CodecError):
        serializer("fails").loads("x")
    with pytest.raises(TypeError, match="dumps"):
        register("none", object())  # type: ignore[arg-type]
    register("module", json)
    assert serializer("module").loads("[1]") == [1]


# -- pickle ----------------------------------------------------------------------------------


def test_no_codec_but_pickle_unpickles(tmp_path: Path) -> None:
    bomb = pickle.dumps(Bomb(tmp_path / "boom"))
    for codec in (serializer("json"), serializer("storable"), build("json", fallback="storable")):
        with pytest.raises(CodecError):
            codec.loads(bomb)
    assert not (tmp_path / "boom").exists()


def test_signed_pickles() -> None:
    old, new = build("pickle", secrets=["old"]), build("pickle", secrets=["new", "old"])
    value = {1: b"\xff", "x": (1, {2})}
    assert new.loads(old.dumps(value)) == value
    assert new.loads(new.dumps(value)) == value
    with pytest.raises(CodecError, match="no configured secret"):
        old.loads(new.dumps(value))


def test_unsigned_and_forged_pickles_do_not_load(tmp_path: Path) -> None:
    codec = build("pickle", secrets=["secret"])
    bomb = pickle.dumps(Bomb(tmp_path / "boom"))
    signed = bytes(codec.dumps("value"))  # type: ignore[arg-type]
    forged = signed[: -len(pickle.dumps("value"))] + bomb
    for data in (bomb, forged, signed[:20], signed[:-1]):
        with pytest.raises(CodecError):
            codec.loads(data)
    assert not (tmp_path / "boom").exists()


def test_a_codec_that_signs_reads_no_unsigned_digits() -> None:
    """Otherwise anyone who can write to the store could forge a number."""
    driver = KVS("memory", codec=build("pickle", secrets=["secret"]))
    driver.raw_set("key", "1000000", None)
    with pytest.raises(CodecError, match="not signed"):
        driver.get("key")
    assert driver.incr("key", 0) == 1_000_000
    unsigned = KVS("memory", codec="pickle")
    unsigned.incr("key", 7)
    assert unsigned.get("key") == 7


def test_a_string_is_not_a_pickle() -> None:
    with pytest.raises(CodecError, match="not a pickle"):
        serializer("pickle").loads("Ω")


def test_a_fallback_does_not_read_a_forged_pickle(tmp_path: Path) -> None:
    signed = bytes(build("pickle", secrets=["secret"]).dumps("value"))  # type: ignore[arg-type]
    forged = signed[: -len(pickle.dumps("value"))] + pickle.dumps(Bomb(tmp_path / "boom"))
    with pytest.raises(CodecError):
        build("pickle", fallback="pickle", secrets=["secret"]).loads(forged)
    assert not (tmp_path / "boom").exists()


def test_unsigned_pickles_load_if_pickle_is_the_fallback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    codec = build("pickle", fallback="pickle", secrets=["secret"])
    with caplog.at_level(logging.WARNING):
        assert codec.loads(pickle.dumps([1])) == [1]
        assert codec.loads(pickle.dumps([2])) == [2]
        assert codec.loads(codec.dumps([3])) == [3]
    assert caplog.text.count("fallback codec 'pickle'") == 1


def test_the_fallback_reads_what_json_cannot_read(caplog: pytest.LogCaptureFixture) -> None:
    codec = build("json", fallback="pickle")
    assert codec.loads('{"a": 1}') == {"a": 1}
    assert caplog.text == ""
    assert codec.loads(pickle.dumps({"a": (1,)})) == {"a": (1,)}
    assert codec.dumps({"a": 1}) == '{"a": 1}'
    with pytest.raises(CodecError, match="not JSON"):
        codec.loads(b"\0neither")


@pytest.mark.parametrize("codec", ["json", "storable"])
def test_a_pickle_in_the_store_is_not_loaded_by_another_codec(
    codec: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kvs = KVS("memory", codec=codec)
    kvs.raw_set("key", pickle.dumps(Bomb(tmp_path / "boom")), 60)
    with pytest.raises(CodecError):
        kvs.get("key")
    with pytest.raises(CodecError):
        kvs.update("key", lambda old: 1)
    assert kvs.delete("key") is None
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize(
    ("codec", "value"), [("json", b"x"), ("storable", {1, 2}), ("pickle", lambda: 1)]
)
def test_a_value_that_a_codec_cannot_write_is_a_type_error(codec: str, value: Any) -> None:
    with pytest.raises(TypeError):
        KVS("memory", codec=codec).set("key", value)
