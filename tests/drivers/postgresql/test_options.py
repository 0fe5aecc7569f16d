"""The postgresql driver's kvs_kwargs."""

from __future__ import annotations

from typing import Any

import pytest

from pyramid_kvs.kvs import KVS
from pyramid_kvs.messages import without_credentials
from tests.drivers.postgresql import helpers  # noqa: F401 - skips these tests without psycopg


def test_defaults() -> None:
    from pyramid_kvs.drivers.postgresql.options import Options, read_options

    assert read_options({}) == Options(
        url="postgresql://",
        pool_size=10,
        max_overflow=10,
        max_backlog=-1,
        pool_timeout=0.5,
        pool_recycle=-1,
        statement_timeout=2.0,
        table="kvs",
        unlogged=False,
        prepare="auto",
        breaker=1.0,
    )


def test_unknown_key_names_the_closest() -> None:
    with pytest.raises(TypeError, match=r"unknown key 'pol_size'.*did you mean 'pool_size'"):
        KVS("postgresql", {"pol_size": 3})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pool_size", 0),
        ("pool_size", True),
        ("pool_size", "10"),
        ("max_overflow", -2),
        ("max_backlog", 1.5),
        ("pool_timeout", 0),
        ("pool_timeout", float("nan")),
        ("pool_recycle", 0),
        ("pool_recycle", -2),
        ("statement_timeout", None),
        ("statement_timeout", -1),
        ("table", "kvs; DROP TABLE users"),
        ("table", 'k"vs'),
        ("table", "a.b.c"),
        ("table", "9lives"),
        ("table", ""),
        ("table", "k" * 56),
        ("table", None),
        ("unlogged", 1),
        ("prepare", "yes"),
        ("breaker", -1),
        ("breaker", True),
        ("breaker", "1"),
        ("breaker", float("nan")),
        ("url", None),
    ],
)
def test_refused_value(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}: found .*, expected "):
        KVS("postgresql", {name: value})


@pytest.mark.parametrize(
    "url",
    [
        "postgres:/user:s3cret@host/db",
        "postgresql://user:s3cret/word@host/db",
        "postgresql://user:pass@s3cret@host/db",
        "postgresql://user:1,s3cret@host/db?port=1,s3cret",
        "postgresql://user:s3cret@host/db?colour=s3cret",
        "redis://:s3cret@host",
        "user s3cret",
    ],
)
def test_url_that_libpq_cannot_read_is_not_shown(url: str) -> None:
    with pytest.raises(ValueError, match="expected postgresql://") as caught:
        KVS("postgresql", {"url": url})
    assert "s3cret" not in str(caught.value)
    assert without_credentials(str(caught.value)) == str(caught.value), "masked as a real one"
    assert caught.value.__context__ is None or caught.value.__suppress_context__
