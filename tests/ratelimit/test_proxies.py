"""The warning about a proxy that the server does not trust."""

from __future__ import annotations

import pytest
from webtest import TestApp

from tests.ratelimit.stores import make_app, statuses

LIMIT = {"limit": 3, "window": 600, "kvs": "memory"}
FORWARDED = {"X-Forwarded-For": "198.51.100.7"}


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    messages = [record.getMessage() for record in caplog.records]
    return [message for message in messages if "does not trust" in message]


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.20.0.2", "192.168.0.9", "::1", "fd00::1", "::ffff:10.0.0.1"],
)
@pytest.mark.parametrize("headers", [FORWARDED, {"Forwarded": "for=198.51.100.7"}])
def test_a_proxy_that_is_not_trusted_causes_one_warning(
    caplog: pytest.LogCaptureFixture, address: str, headers: dict[str, str]
) -> None:
    app = make_app(LIMIT, address=address)
    assert statuses(app, 4, headers=headers) == [200, 200, 200, 429]
    (message,) = warnings(caplog)
    assert "all its clients without another identity share one rate limit" in message
    assert address not in message
    assert "198.51.100.7" not in message


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"SERVER_SOFTWARE": "waitress"}, "set trusted_proxy and trusted_proxy_headers"),
        ({"SERVER_SOFTWARE": "gunicorn/27.0.1"}, "add the filter egg:PasteDeploy#prefix"),
        ({"SERVER_SOFTWARE": "Apache/2.4"}, "set WSGITrustedProxies"),
        ({"uwsgi.version": "2.0.30"}, "uwsgi_pass and uwsgi_params"),
        ({}, "waitress: trusted_proxy"),
    ],
)
def test_the_warning_names_the_setting_of_the_server(
    caplog: pytest.LogCaptureFixture, environ: dict[str, str], expected: str
) -> None:
    app = make_app(LIMIT, address="127.0.0.1")
    app.get("/", headers=FORWARDED, extra_environ={"REMOTE_ADDR": "127.0.0.1", **environ})
    assert expected in warnings(caplog)[0]


@pytest.mark.parametrize("address", ["192.0.2.1", "172.32.0.1", "2001:db8::1", "unix:", ""])
def test_a_public_address_causes_no_warning(caplog: pytest.LogCaptureFixture, address: str) -> None:
    make_app(LIMIT, address=address).get("/", headers=FORWARDED)
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    "headers", [{}, {"X-Forwarded-For": "10.0.0.5"}, {"Forwarded": "for=10.0.0.5;proto=https"}]
)
def test_a_private_client_causes_no_warning(
    caplog: pytest.LogCaptureFixture, headers: dict[str, str]
) -> None:
    """The server has taken the address from the header of a proxy that it trusts."""
    make_app(LIMIT, address="10.0.0.5").get("/", headers=headers)
    assert warnings(caplog) == []


def test_limits_that_do_not_count_addresses_cause_no_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limit = {**LIMIT, "by": "header:X-Api-Key", "unknown": "allow"}
    make_app(limit, address="127.0.0.1").get("/", headers=FORWARDED)
    assert warnings(caplog) == []


def test_each_application_warns(caplog: pytest.LogCaptureFixture) -> None:
    apps: list[TestApp] = [make_app(LIMIT, address="127.0.0.1") for _ in range(2)]
    for app in apps:
        app.get("/", headers=FORWARDED)
    assert len(warnings(caplog)) == 2
