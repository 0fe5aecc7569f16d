"""The metrics of prometheus_client: their exact names, one set for the process, and the gauges."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import prometheus_client as client
import pytest
from pyramid.config import Configurator

from pyramid_kvs.application import Application
from tests.observe.apps import Options, cache, configured, driver_of, imported
from tests.servers import RedisServer, free_port, wait_until
from tests.test_layers import python

OBSERVED: dict[str, Any] = {"kvs.observe": ["prometheus"]}
#: A sample of the text that Prometheus reads: name, labels, value.
SAMPLE = re.compile(r"^(kvs_\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


def samples() -> dict[str, float]:
    """Return the metrics of the package as they are scraped."""
    return parsed(client.generate_latest().decode())


def parsed(text: str) -> dict[str, float]:
    found = SAMPLE.findall(text)
    return {f"{name}{{{labels}}}" if labels else name: float(v) for name, labels, v in found}


def grown(act: Callable[[], object]) -> dict[str, float]:
    """Return by how much a call makes the metrics grow, without buckets and durations."""
    before = samples()
    act()
    after = samples()
    return {
        name: after[name] - before.get(name, 0)
        for name in after
        if after[name] != before.get(name, 0) and not re.search(r"_bucket|_sum|_created", name)
    }


def test_operations_hits_misses_and_errors_are_counted(store: Options) -> None:
    found = cache(configured({**OBSERVED, "kvs.cache": store}))

    def act() -> None:
        found.set("a", 1)
        for key in ("a", "a", "b"):
            found.get(key)
        found.get_many(["a", "b", "c"])

    counts = {name: n for name, n in grown(act).items() if "pool" not in name}
    duration = 'kvs_operation_duration_seconds_count{operation="%s",setting="kvs.cache"}'
    assert counts == {
        duration % "set": 1,
        duration % "get": 3,
        duration % "get_many": 1,
        "kvs_hits_total": 3,
        "kvs_misses_total": 3,
    }


def test_names_and_labels_are_the_documented_ones(redis_server: RedisServer) -> None:
    place = {"host": redis_server.host, "port": redis_server.port}
    registry = configured({**OBSERVED, "kvs.cache": {"kvs": "redis", "kvs_kwargs": place}})
    cache(registry).get("a")
    with pytest.raises(TypeError):
        driver_of(registry).raw_get(1)  # type: ignore[arg-type]
    text = client.generate_latest().decode()
    lines = {re.sub(r'="[^"]*"', "", line.split(" ")[0]) for line in text.splitlines()}
    assert {line for line in lines if line.startswith("kvs_") and "_created" not in line} == {
        "kvs_operation_duration_seconds_bucket{le,operation,setting}",
        "kvs_operation_duration_seconds_count{operation,setting}",
        "kvs_operation_duration_seconds_sum{operation,setting}",
        "kvs_hits_total",
        "kvs_misses_total",
        "kvs_errors_total{error}",
        "kvs_pool_connections{state}",
        "kvs_breaker_open{server}",
    }
    types = dict(re.findall(r"^# TYPE (kvs_\w+) (\w+)$", text, re.MULTILINE))
    assert types["kvs_operation_duration_seconds"] == "histogram"
    assert types["kvs_pool_connections"] == types["kvs_breaker_open"] == "gauge"
    assert samples()['kvs_errors_total{error="TypeError"}'] >= 1


def test_pools_and_breakers_are_read_when_they_are_scraped(
    own_redis: Callable[..., RedisServer],
) -> None:
    server = own_redis()
    place = {"host": server.host, "port": server.port, "socket_timeout": 0.05}
    registry = configured({**OBSERVED, "kvs.cache": {"kvs": "redis", "kvs_kwargs": place}})
    found = cache(registry)
    found.get("a")
    (pool,) = driver_of(registry).connection_pools()
    connection = pool.take()

    def taken() -> None:
        pool.drop(connection)

    assert grown(taken) == {'kvs_pool_connections{state="in_use"}': -1}
    breaker = f'kvs_breaker_open{{server="{server.host}:{server.port}"}}'
    assert samples()[breaker] == 0
    server.pause()
    try:
        found.get("a")
        assert samples()[breaker] == 1
        wait_until(lambda: samples()[breaker] == 0, "the breaker to close")
    finally:
        server.resume()


def test_a_server_that_no_driver_uses_any_more_is_not_a_label(redis_server: RedisServer) -> None:
    """A node of a cluster or a primary that moved away."""
    place = {"host": redis_server.host, "port": redis_server.port}
    registry = configured({**OBSERVED, "kvs.cache": {"kvs": "redis", "kvs_kwargs": place}})
    gone = Application.of(registry).breakers.get("redis at 10.9.8.7:6379")
    assert 'kvs_breaker_open{server="10.9.8.7:6379"}' in samples()
    del gone
    found = {name for name in samples() if name.startswith("kvs_breaker_open")}
    assert f'kvs_breaker_open{{server="{redis_server.host}:{redis_server.port}"}}' in found
    assert 'kvs_breaker_open{server="10.9.8.7:6379"}' not in found


def test_several_applications_two_includes_and_reloads_share_the_metrics() -> None:
    first = cache(configured({**OBSERVED, "kvs.cache": {"kvs": "memory"}}))
    config = Configurator(settings={**OBSERVED, "kvs.cache": {"kvs": "memory"}})
    for _ in range(2):
        config.include("pyramid_kvs")
        config.commit()
    config.include(lambda config: config.include("pyramid_kvs"))
    config.make_wsgi_app()
    for name in [name for name in sys.modules if name.startswith("pyramid_kvs.observe.")]:
        del sys.modules[name]
    third = cache(configured({**OBSERVED, "kvs.cache": {"kvs": "memory"}}))
    for found in (first, cache(config.registry), third):
        assert grown(lambda: found.get("a"))["kvs_misses_total"] == 1  # noqa: B023


def test_an_application_that_is_gone_is_not_collected() -> None:
    registry = configured({**OBSERVED, "kvs.cache": {"kvs": "memory"}})
    listener: Any = Application.of(registry).listeners[0]
    before = len(listener.gauges._applications)
    del registry
    gc.collect()
    assert len(listener.gauges._applications) < before


# -- several processes -----------------------------------------------------------------------

SITE = """
import os
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from pyramid.config import Configurator
from pyramid.response import Response

def home(request):
    request.cache.get("a")
    return Response(str(os.getpid()))

def metrics(request):
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return Response(generate_latest(registry))

settings = {"kvs.observe": ["prometheus"], "kvs.cache": {"kvs": "memory"}}
with Configurator(settings=settings) as config:
    config.include("pyramid_kvs")
    config.add_route("home", "/")
    config.add_view(home, route_name="home")
    config.add_route("metrics", "/metrics")
    config.add_view(metrics, route_name="metrics")
    app = config.make_wsgi_app()
"""


@contextmanager
def gunicorn(folder: Path) -> Iterator[str]:
    """Run the site in two processes, and yield its URL."""
    (folder / "site_of_test.py").write_text(SITE)
    (folder / "metrics").mkdir()
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-w", "2", "-b", f"127.0.0.1:{port}"]
    environ = {
        **os.environ,
        "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics"),
        "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)]),
    }
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [*command, "--preload", "site_of_test:app"], env=environ, stdout=log, stderr=log
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _answers(url), "gunicorn to answer")
        yield url
    finally:
        process.terminate()
        process.wait(60)
        log.close()


def _answers(url: str) -> bool:
    try:
        _get(f"{url}/metrics")
    except OSError:
        return False
    return True


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as response:
        return str(response.read().decode())


def test_two_processes_of_gunicorn_are_added_up(tmp_path: Path) -> None:
    imported("gunicorn")
    with gunicorn(tmp_path) as url:
        pids: dict[str, int] = {}
        end = time.monotonic() + 60
        while (len(pids) < 2 or sum(pids.values()) < 50) and time.monotonic() < end:
            pid = _get(f"{url}/")
            pids[pid] = pids.get(pid, 0) + 1
        found = parsed(_get(f"{url}/metrics"))
    assert len(pids) == 2
    assert found["kvs_misses_total"] == sum(pids.values())
    name = 'kvs_operation_duration_seconds_count{operation="get",setting="kvs.cache"}'
    assert found[name] == sum(pids.values())
    assert not [name for name in found if "pool" in name or "breaker" in name]


FORKED = """
import os, sys
from prometheus_client import generate_latest
from tests.observe.apps import imported, cache, configured
found = cache(configured({"kvs.observe": ["prometheus"], "kvs.cache": {"kvs": "memory"}}))
found.get("a")
sys.stdout.flush()
pid = os.fork()
if not pid:
    found.get("a")
    text = generate_latest().decode()
    print([line for line in text.splitlines() if line.startswith("kvs_misses_total")], flush=True)
    os._exit(0)
os.waitpid(pid, 0)
"""


def test_a_child_process_goes_on_counting_for_itself() -> None:
    assert python(FORKED) == "['kvs_misses_total 2.0']"
