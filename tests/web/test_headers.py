"""``Vary``: the request headers on which a response depends."""

from __future__ import annotations

from typing import Any

import pytest

from pyramid_kvs.web.headers import add_vary


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "Cookie"),
        ("", "Cookie"),
        ("Accept", "Accept, Cookie"),
        ("Accept, cookie", "Accept, cookie"),
        ("*", "*"),
    ],
)
def test_a_header_is_added_once(before: str | None, after: str) -> None:
    headers = [("Content-Type", "text/plain")]
    if before is not None:
        headers.append(("vary", before))
    add_vary(headers, "Cookie")
    assert [value for name, value in headers if name.lower() == "vary"] == [after]


def test_a_header_that_is_a_list() -> None:
    """Pairs in a response's list of headers are tuples, but WebOb and most servers accept lists."""
    headers: Any = [["Vary", "Accept"]]
    add_vary(headers, "Cookie")
    assert [*map(tuple, headers)] == [("Vary", "Accept, Cookie")]
