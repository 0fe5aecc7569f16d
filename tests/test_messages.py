"""Parts of error messages: they name what is known, and show no secret."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyramid_kvs.messages import closest, quoted, reason, show, unknown_name, without_credentials

#: Longer than any other part of the values below, so that it is not in them by chance.
passwords = st.text(
    string.ascii_letters + string.digits + " :/@?&=#%'\"\\,;", min_size=12, max_size=30
)


def test_the_closest_name() -> None:
    assert closest("reddis", ["memory", "redis"]) == "; did you mean 'redis'?"
    assert closest("REDIS", ["redis"]) == "; did you mean 'redis'?"
    assert closest("x", ["memory", "redis"]) == ""


def test_an_unknown_name() -> None:
    assert unknown_name("codec", "jason", ["json", "pickle"]) == (
        "unknown codec 'jason' (known: json, pickle; did you mean 'json'?)"
    )
    assert unknown_name("key", 5, ["ttl"], "; see the docs") == (
        "unknown key 5 (known: ttl; see the docs)"
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", '"plain"'),
        ("cache::", '"cache::"'),
        (None, "null"),
        ([1, 2.5, True], "[1, 2.5, true]"),
        (float("nan"), "NaN"),
        pytest.param(10**5000, '"an integer of 16610 bits"', id="5001 digits"),
        ({"host": "h", "port": 1}, '{"host": "h", "port": 1}'),
        ({5: {"é"}}, '{"5": "{\'é\'}"}'),
        ("redis://u:hunter2@h:1/0", '"redis://***@h:1/0"'),
        (b"redis://u:hunter2@h", "\"b'redis://***@h'\""),
        ("u:hunter2@h:1", '"***@h:1"'),
        ("postgresql://h/x?user=u&password=hunter2", '"postgresql://h/x?user=u&password=***"'),
        ("postgresql://h/x?password=hun@ter2&x=1", '"postgresql://***"'),
        ("host=h pasword=hun ter2 port=1", '"host=h pasword=*** port=1"'),
        ("host=h password=hun ter2 port=1", '"host=h password=*** port=1"'),
        (r"password='hun\' ter2' host=h", '"password=*** host=h"'),
        ({"pwd": "hunter2", "AUTH": "hunter2"}, '{"pwd": "***", "AUTH": "***"}'),
        ({"dsn": "hunter2", "api_key": 5}, '{"dsn": "***", "api_key": "***"}'),
        ({"pasword": "hunter2", "scret": "hunter2"}, '{"pasword": "***", "scret": "***"}'),
        ({"a": [{"redis://u:hunter2@h": 1}]}, '{"a": [{"redis://***@h": 1}]}'),
        ("x" * 200, '"' + "x" * 116 + "..."),
    ],
)
def test_a_value_is_shown_without_its_secrets(value: Any, shown: str) -> None:
    assert show(value) == shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("redis", "'redis'"),
        ("it's", '"it\'s"'),
        ("redis://u:hunter2@h", "'redis://***@h'"),
        (b"redis://u:hunter2@h", "b'redis://***@h'"),
        (dict, "<class 'dict'>"),
    ],
)
def test_a_name_is_quoted_without_its_secrets(name: object, shown: str) -> None:
    assert quoted(name) == shown


PLACES: list[Callable[[str], Any]] = [
    lambda password: f"redis://user:{password}@host/0",
    lambda password: f"redis://:{quote(password)}@host/0",
    lambda password: f"postgresql://host/db?password={quote(password, safe='@')}&x=1",
    lambda password: {"password": password, "host": "h"},
    lambda password: {"sentinel_kwargs": {"pwd": password}},
    lambda password: {"servers": [f"user:{password}@host:11211"]},
    lambda password: [{f"redis://user:{password}@host"}],
]


@given(password=passwords, place=st.sampled_from(PLACES))
def test_no_part_of_a_password_is_shown(password: str, place: Callable[[str], Any]) -> None:
    value = place(password)
    for message in (show(value), quoted(value), reason(ValueError(f"bad: {value}"), value)):
        assert quote(password) not in message
        for start in range(len(password) - 5):
            assert password[start : start + 6] not in message


def test_an_error_of_another_library_is_shown_without_what_it_was_given() -> None:
    given_to_it = {"url": "redis://u:hunter2@h", "servers": ["u:hunter2@h"], "auth": "s3cret"}
    error = ValueError("cannot parse u:hunter2@h of redis://u:hunter2@h with s3cret")
    assert reason(error, given_to_it) == "cannot parse ***@h of redis://***@h with ***"


@pytest.mark.parametrize(
    "message",
    [
        'FATAL: password authentication failed for user "u"',
        "Redis.__init__() got an unexpected keyword argument 'pwd'",
        "no connection to redis at 127.0.0.1:6379: timed out",
        "expected postgresql://host:5432/db; write redis://***@h/0",
        "AUTH failed: WRONGPASS invalid username-password pair",
    ],
)
def test_a_message_without_credentials_stays_as_it_is(message: str) -> None:
    assert without_credentials(message) == message


@pytest.mark.parametrize(
    "message",
    [
        "unknown driver 'redis://u:hun@ter2@h/0' (known: redis)",
        "unknown driver 'redis://***@h/0' (known: redis); write redis://***@h/0",
        "refused 'redis://***@h', and also redis://u:hunter2@h",
        "redis://***@hunter2@h",
    ],
)
def test_a_message_that_is_masked_again_loses_nothing(message: str) -> None:
    once = without_credentials(message)
    assert "ter2" not in once
    assert without_credentials(once) == once
    assert once.startswith(message.split("redis://")[0])
    assert once.endswith(message.split("h")[-1])


def test_the_dictionary_of_another_library_loses_its_password() -> None:
    message = f"cannot connect: {json.dumps({'password': 'hunter2', 'host': 'h'})}"
    assert without_credentials(message) == 'cannot connect: {"password": ***, "host": "h"}'
