"""All ways to a server: options, URLs, sockets, pools, passwords and TLS."""

from __future__ import annotations

import subprocess

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from pyramid_kvs.exceptions import KVSError
from pyramid_kvs.kvs import KVS
from tests.drivers.redis.support import (
    SentinelServer,
    driver_of,
    kill_clients,
    pool_of,
    unavailable,
    works,
)
from tests.servers import free_port, need


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"decode_responses": True},
        {"protocol": 3},
        {"protocol": 3, "decode_responses": True},
        {"health_check_interval": 1},
        {"max_connections": 1, "socket_keepalive": True},
        {"db": 3, "client_name": "app", "encoding": "latin-1"},
        {"db": "3", "port": None},
        {"retry": Retry(NoBackoff(), 2)},
        {"retry_on_error": [redis.ConnectionError]},
        {"socket_timeout": None, "socket_connect_timeout": 3},
    ],
)
def test_client_options(server, kwargs):
    if "port" in kwargs:
        kwargs = {**kwargs, "port": str(server.port)}
    assert works(driver_of(server, "p:", **kwargs))


@pytest.mark.parametrize("unix", [False, True])
@pytest.mark.parametrize("by_url", [False, True])
def test_timeouts_and_retries_of_the_client(server, unix, by_url):
    """The same for each version of redis-py and each way to name the server."""
    if by_url:
        kwargs = {"url": f"unix://{server.socket_path}" if unix else server.url}
    else:
        kwargs = {"unix_socket_path": server.socket_path} if unix else {"port": server.port}
    driver = KVS("redis", kwargs)
    driver.get("key")
    connection = pool_of(driver).take()._connection
    assert connection.socket_timeout == connection.socket_connect_timeout == 0.5
    assert connection._sock.gettimeout() == 0.5
    options = driver._client.connection_pool.connection_kwargs
    assert options["socket_timeout"] == options["socket_connect_timeout"] == 0.5
    assert options["retry"]._retries == 0
    assert driver._client.get("key") is None


def test_url(server):
    assert works(KVS("redis", {"url": server.url}))
    driver = KVS("redis", {"url": f"redis://{server.host}:{server.port}/5?socket_timeout=3"})
    driver.set("key", 1)
    assert server.command("INFO", "keyspace")["db5"]["keys"] == 1
    assert pool_of(driver).take()._connection.socket_timeout == 3
    driver.flush()


def test_unix_socket(server):
    assert works(KVS("redis", {"unix_socket_path": server.socket_path}))
    assert works(KVS("redis", {"url": f"unix://{server.socket_path}?db=2"}))


def test_given_pool(server):
    pool = redis.ConnectionPool(host=server.host, port=server.port, max_connections=2)
    assert works(KVS("redis", {"connection_pool": pool}))


def test_pool_of_a_sentinel(own_redis):
    server = own_redis()
    with SentinelServer(server) as watcher:
        sentinel = redis.Sentinel([(watcher.host, watcher.port)], socket_timeout=0.5)
        client = sentinel.master_for("main", socket_timeout=0.5)
        driver = KVS("redis", {"connection_pool": client.connection_pool})
        assert works(driver)
        kill_clients(server)
        driver.set("key", 1)
        assert driver.get("key") == 1
        server.kill()
        assert f"redis at {server.host}:{server.port}" in str(
            unavailable(lambda: driver.get("key"))
        )


PASSWORD = "p@ss/w:rd%#é"


QUOTED = "p%40ss%2Fw%3Ard%25%23%C3%A9"


def test_password(own_redis):
    server = own_redis(requirepass=PASSWORD)
    address = f"{server.host}:{server.port}"
    assert works(KVS("redis", {"url": f"redis://:{QUOTED}@{address}/0"}))
    assert works(driver_of(server, password=PASSWORD))
    assert works(driver_of(server, password=PASSWORD, protocol=3))
    for kwargs in ({}, {"password": PASSWORD + "x"}, {"username": "nobody", "password": PASSWORD}):
        refused = driver_of(server, **kwargs)
        error = unavailable(lambda: refused.get("key"))  # noqa: B023
        assert PASSWORD not in str(error)


def test_user(own_redis):
    server = own_redis()
    name, quoted = "us@er:1", "us%40er%3A1"
    server.command("ACL", "SETUSER", name, "on", f">{PASSWORD}", "~p:*", "+@all", "-getdel")
    url = f"redis://{quoted}:{QUOTED}@{server.host}:{server.port}"
    driver = KVS("redis", {"url": url}, key_prefix="p:")
    driver.set("key", 1)
    assert driver.get("key") == 1
    with pytest.raises(KVSError) as raised:
        driver.delete("key")
    assert type(raised.value) is KVSError
    with pytest.raises(KVSError):
        KVS("redis", {"url": url}, key_prefix="other:").get("key")


def test_tls(own_redis, tmp_path):
    openssl = need("openssl")
    make = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [*make, "-nodes", "-days", "2", "-keyout", key, "-out", cert, *names],
        check=True,
        capture_output=True,
    )
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    port = free_port()
    server = own_redis(
        *("--tls-port", str(port), "--tls-cert-file", str(cert), "--tls-key-file", str(key)),
        *("--tls-ca-cert-file", str(cert), "--tls-auth-clients", "no"),
    )
    url = f"rediss://127.0.0.1:{port}/0"
    driver = KVS("redis", {"url": url, "ssl_ca_certs": str(cert)})
    assert works(driver)
    connection = pool_of(driver).take()
    pool_of(driver).give(connection)
    connection.used_at -= 1
    assert connection.is_alive()
    kill_clients(server)
    assert driver.incr("count") == 1
    driver.flush()
    by_name = {"host": "localhost", "port": port, "ssl": True, "ssl_ca_certs": str(cert)}
    assert works(KVS("redis", by_name))
    assert "certificate" in str(unavailable(lambda: KVS("redis", {"url": url}).get("key"))).lower()
    server.pause()
    unavailable(lambda: driver.get("key"))
    unavailable(lambda: KVS("redis", by_name).get("key"))
    server.resume()


def test_tls_to_a_server_without_tls(redis_server):
    url = f"rediss://127.0.0.1:{redis_server.port}/0"
    error = unavailable(lambda: KVS("redis", {"url": url}).get("key"))
    assert "no answer to the TLS handshake in time; does the server use TLS?" in str(error)


def test_an_unknown_name():
    said = r"connecting to unknown\.invalid:6379\. the host name 'unknown\.invalid' was not found: "
    with pytest.raises(KVSError, match=said):
        KVS("redis", {"host": "unknown.invalid"}).get("key")
