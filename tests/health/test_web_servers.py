"""The view in the processes of web servers. uWSGI runs threads of Python only during a request."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.servers import RedisServer, wait_until
from tests.web_servers import Gunicorn, Uwsgi, Waitress, WebServer


@pytest.mark.parametrize("kind", [Uwsgi, Gunicorn, Waitress])
def test_it_answers_in_each_process(
    kind: type[WebServer], own_redis: Callable[..., RedisServer]
) -> None:
    server = own_redis()
    store = {"kvs": "redis", "kvs_kwargs": {"host": server.host, "port": server.port}}
    with kind("tests.health.site:application", STORE=json.dumps(store)) as web:
        assert {web.get("/health")[0] for _ in range(20)} == {200}
        server.pause()
        for _ in range(6):
            status, body = web.get("/health")
            assert status == 503
            assert json.loads(body)["stores"][0]["ok"] is False
        server.resume()
        wait_until(lambda: web.get("/health")[0] == 200, "the store's return")
