"""Run the demo with pserve on each store that its ini file names, and use it over HTTP."""

from __future__ import annotations

import http.cookiejar
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

import pytest

from tests.servers import MemcachedServer, RedisServer, free_port

DEMO = Path(__file__).parent.parent / "docs" / "demo"
PSERVE = "from pyramid.scripts.pserve import main; main()"


class Browser:
    """An HTTP client that keeps cookies, follows redirects, and returns 4xx responses."""

    def __init__(self, address: str) -> None:
        self.address = address
        jar = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
        self.page = ""

    def get(self, path: str = "/", **form: str) -> HTTPResponse:
        data = urllib.parse.urlencode(form).encode() if form else None
        try:
            response = self.opener.open(self.address + path, data, timeout=30)
        except urllib.error.HTTPError as error:
            response = error
        self.page = response.read().decode()
        return response

    def post(self, path: str, **form: str) -> HTTPResponse:
        token = re.search(r'name="csrf_token" value="([^"]+)"', self.page)
        assert token
        return self.get(path, csrf_token=token[1], **form)

    def number(self, name: str) -> int:
        found = re.search(rf'id="{name}">(\d+)<', self.page)
        assert found, self.page
        return int(found[1])


@pytest.fixture(params=["memory", "redis", "memcache"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Start the demo with the store line of its ini file replaced, and yield its address."""
    store = '"kvs": "memory"'
    if request.param == "redis":
        redis: RedisServer = request.getfixturevalue("redis_server")
        store = f'"kvs": "redis", "kvs_kwargs": {{"url": "{redis.url}"}}'
    elif request.param == "memcache":
        memcached: MemcachedServer = request.getfixturevalue("memcached_server")
        server = f"{memcached.host}:{memcached.port}"
        store = f'"kvs": "memcache", "kvs_kwargs": {{"servers": ["{server}"]}}'
    ini = tmp_path / "demo.ini"
    text = (DEMO / "demo.ini").read_text()
    ini.write_text(re.sub(r"(?m)^store = .*$", lambda _: f"store = {store}", text))
    port = free_port()
    command = [sys.executable, "-c", PSERVE, str(ini), f"http_port={port}"]
    environment = {**os.environ, "PYTHONPATH": str(DEMO)}
    with (tmp_path / "log").open("w") as log:
        server_process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield wait_for(f"http://127.0.0.1:{port}", server_process, tmp_path / "log")
    finally:
        server_process.terminate()
        server_process.wait(30)


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> str:
    for _ in range(300):
        if "Serving on" in log.read_text():
            return address
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def test_every_feature_works(address: str) -> None:
    browser, other = Browser(address), Browser(address)

    assert browser.get().status == 200
    assert browser.number("visits") == 1
    assert "1229</span> primes" in browser.page
    browser.get()
    assert browser.number("visits") == 2
    other.get()
    assert other.number("visits") == 1

    browser.post("/greet", name="<Ada>")
    assert '<p class="flash">Hello, &lt;Ada&gt;!</p>' in browser.page
    assert browser.number("visits") == 3
    browser.get()
    assert "Hello" not in browser.page

    browser.post("/forget")
    assert browser.number("visits") == 1

    statuses = [browser.get("/ping").status for _ in range(12)]
    assert statuses == sorted(statuses)
    assert {200, 429} == set(statuses)
    refused = browser.get()
    assert refused.status == 429
    assert int(refused.headers["Retry-After"]) > 0
    assert refused.headers["X-RateLimit-Limit"] == "10"
    assert refused.headers["X-RateLimit-Remaining"] == "0"
