"""Perl logs a user in, Pyramid reads and changes the session, and Perl reads the change."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from tests.perlsess.sites import PerlSite, Site, as_json
from tests.servers import MemcachedServer, RedisServer, need_perl
from tests.storable.perl import perl_image, run_perl


class Kind(NamedTuple):
    name: str
    modules: tuple[str, ...]
    key_format: str = "{id}"
    format: str = "plain"


CACHE = ("Cache::Memcached",)
FAST = ("Cache::Memcached::Fast",)
CGI = ("CGI::Session", "CGI::Session::Driver::memcached", "Cache::Memcached")
CHI = ("CHI", "CHI::Driver::Memcached", "Cache::Memcached")
APACHE = ("Apache::Session", "Redis")

ON_MEMCACHED = [
    Kind("Cache-Memcached", CACHE, "session:{id}"),
    Kind("Cache-Memcached/large", CACHE, "session:{id}"),
    Kind("Cache-Memcached-Fast", FAST, "session:{id}"),
    Kind("Cache-Memcached-Fast/large", FAST, "session:{id}"),
    Kind("Cache-Memcached-Fast/native", FAST, "session:{id}"),
    Kind("CGI-Session", CGI),
    Kind("Apache-Session", ("Apache::Session", "Apache::Session::Memcached")),
    Kind("CHI", CHI, "session:{id}", "chi"),
    Kind("CHI/large", CHI, "session:{id}", "chi"),
]
ON_REDIS = [
    Kind("Apache-Session/Base64", APACHE, "session:{id}", "base64"),
    Kind("Apache-Session/Sybase", APACHE, "session:{id}", "hex"),
    Kind("Apache-Session/UUEncode", APACHE, "session:{id}", "uuencode"),
    Kind("Apache-Session/Storable", APACHE, "session:{id}", "plain"),
    Kind("catalyst", ("Redis",), "session:{id}", "base64"),
    Kind("fastmmap", ("Redis",), "session:{id}"),
    Kind("native", ("Redis",), "session:{id}"),
]

#: ``new_session`` of sessions.pl in Python.
SESSION = {
    "user": "ann",
    "admin": 0,
    "name": "Zoë ☺",
    "bytes": "Zoë",
    "cart": [{"sku": "a1", "count": 2}],
    "account": {"number": 7},
}


def setting(kind: Kind, store: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**store, "key_prefix": "", "key_format": kind.key_format, **more}


def on_memcached(server: MemcachedServer) -> dict[str, Any]:
    return {"kvs": "memcache", "kvs_kwargs": {"servers": [server.url]}}


def on_redis(server: RedisServer) -> dict[str, Any]:
    return {"kvs": "redis", "kvs_kwargs": {"host": server.host, "port": server.port}}


def check_round_trip(kind: Kind, address: str, store: dict[str, Any]) -> None:
    perl_site = PerlSite(need_perl(*kind.modules), kind.name, address)
    session_id = perl_site.login()
    for count, format_name in ((2, "auto"), (3, kind.format)):
        site = Site(setting(kind, store, format=format_name, writable=True))
        found = site.read(session_id)
        expected = {**SESSION, "cart": [{"sku": "a1", "count": count}]}
        assert {key: found[key] for key in SESSION} == expected
        check_change(site, perl_site, session_id, kind.key_format.format(id=session_id))


def check_change(site: Site, perl_site: PerlSite, session_id: str, key: str) -> None:
    before = perl_site.show(session_id)
    ttl = site.driver.raw_ttl(key)

    def change(request: Any) -> None:
        request.perlsess["seen"] = "Größe"
        request.perlsess["cart"][0]["count"] += 1
        request.perlsess["empty"] = None

    site.get(change, session_id)
    after = perl_site.show(session_id)
    count = before["cart"][0]["count"] + 1
    changed = {"seen": "Größe", "empty": None, "cart": [{"sku": "a1", "count": count}]}
    assert after == {**before, **changed}
    assert site.driver.raw_ttl(key) == pytest.approx(ttl, abs=30)
    perl_site.set(session_id, "seen", "by perl")
    assert site.read(session_id)["seen"] == "by perl"


@pytest.mark.parametrize("kind", ON_MEMCACHED, ids=lambda kind: kind.name)
def test_on_memcached(kind: Kind, memcached_server: MemcachedServer) -> None:
    check_round_trip(kind, memcached_server.url, on_memcached(memcached_server))


@pytest.mark.parametrize("kind", ON_REDIS, ids=lambda kind: kind.name)
def test_on_redis(kind: Kind, redis_server: RedisServer) -> None:
    store = on_redis(redis_server)
    check_round_trip(kind, f"{redis_server.host}:{redis_server.port}", store)


def test_flags_and_compression_are_kept(memcached_server: MemcachedServer) -> None:
    """A save keeps the flags of Cache::Memcached: 3, for Storable and gzip."""
    perl_site = PerlSite(need_perl(*CACHE), "Cache-Memcached/large", memcached_server.url)
    session_id = perl_site.login()
    site = Site(setting(ON_MEMCACHED[0], on_memcached(memcached_server), writable=True))
    before = site.driver.raw_load(f"session:{session_id}")
    site.get(lambda request: request.perlsess.update(new=1), session_id)
    after = site.driver.raw_load(f"session:{session_id}")
    assert (before.flags, after.flags) == (3, 3)
    assert before.data != after.data
    assert after.data.startswith(b"\x1f\x8b")


def test_keys_on_several_servers(own_memcached: Any) -> None:
    """A key is looked up on the server that Perl's client chooses."""
    servers = [own_memcached(), own_memcached()]
    address = ",".join(server.url for server in servers)
    perl = need_perl("Cache::Memcached", "Cache::Memcached::Fast")
    store = {"kvs": "memcache", "kvs_kwargs": {"servers": address.split(",")}}
    site = Site(setting(ON_MEMCACHED[0], store))
    for number in range(8):
        kind = "Cache-Memcached" if number % 2 else "Cache-Memcached-Fast"
        session_id = PerlSite(perl, kind, address).login(f"{number:032x}")
        assert site.read(session_id)["user"] == "ann"
    assert all(int(server.stats()["curr_items"]) for server in servers)


def test_expiry_of_cgi_session(memcached_server: MemcachedServer, caplog: Any) -> None:
    """The expiry that CGI::Session notes in the data counts, although memcached has the session."""
    perl_site = PerlSite(need_perl(*CGI), "CGI-Session", memcached_server.url)
    session_id = perl_site.login()
    site = Site(setting(Kind("", ()), on_memcached(memcached_server), writable=True))

    def let_it_age(request: Any) -> None:
        request.perlsess["_SESSION_ATIME"] -= 601

    site.get(let_it_age, session_id)
    assert site.read(session_id) == {}
    (record,) = caplog.records
    assert "it has expired" in record.getMessage()
    assert session_id not in caplog.text


def test_file_cache_object(redis_server: RedisServer, tmp_path: Any) -> None:
    """The data of Cache::FileCache (Catalyst's Store::File) are read and changed on any store."""
    perl = need_perl("Cache::Cache")
    script = (
        "use Cache::FileCache; my ($root) = @ARGV;"
        "my $cache = Cache::FileCache->new({cache_root => $root, namespace => 'n'});"
        "$cache->set('session:abc', {user => 'ann', role => bless({}, 'Role')}, 600)"
    )
    run_perl(perl, "-e", script, str(tmp_path))
    (path,) = (path for path in tmp_path.rglob("*") if path.is_file())
    site = Site({**on_redis(redis_server), "writable": True})
    site.driver.raw_set("abc", path.read_bytes(), 600)
    assert site.read("abc") == {"user": "ann", "role": {}}
    site.get(lambda request: request.perlsess.update(user="bob"), "abc")
    path.write_bytes(site.driver.raw_get("abc"))
    script = script.partition("$cache->set")[0] + (
        "my $found = $cache->get('session:abc'); print $found->{user}, ref $found->{role}"
    )
    assert run_perl(perl, "-e", script, str(tmp_path)) == b"bobRole"


def test_fast_mmap_value(redis_server: RedisServer, tmp_path: Any) -> None:
    """The data of Cache::FastMmap (Catalyst's Store::FastMmap) have a reference at their root."""
    perl = need_perl("Cache::FastMmap")
    script = (
        "use Cache::FastMmap; binmode STDOUT; my @file = (share_file => $ARGV[0]);"
        "my $cache = Cache::FastMmap->new(@file, init_file => 1);"
        "$cache->set(a => {user => 'ann', n => [1]});"
        "print Cache::FastMmap->new(@file, raw_values => 1)->get('a')"
    )
    data = run_perl(perl, "-e", script, str(tmp_path / "map"))
    site = Site({**on_redis(redis_server), "writable": True})
    site.driver.raw_set("abc", data, 600)
    site.get(lambda request: request.perlsess.update(m=2), "abc")
    assert site.read("abc") == {"user": "ann", "n": [1], "m": 2}
    shown = "print join ',', map { $_ // 'undef' } ${Storable::thaw(join '', <STDIN>)}->{m}"
    saved = site.driver.raw_get("abc")
    assert run_perl(perl, "-MStorable", "-e", shown, stdin=saved) == b"2"


@pytest.mark.parametrize("function", ["nfreeze", "freeze"])
def test_on_postgresql_and_memory(function: str, postgres_server: Any) -> None:
    perl = need_perl()
    image = perl_image(perl, "{user => 'ann', list => [1, 2]}", function)
    stores = [
        {"kvs": "postgresql", "kvs_kwargs": {"url": postgres_server.url}},
        {"kvs": "memory"},
    ]
    for store in stores:
        site = Site({**store, "writable": True})
        site.driver.initialize_schema()
        site.driver.raw_set("abc", image, 600)
        assert site.read("abc") == {"user": "ann", "list": [1, 2]}
        site.get(lambda request: request.perlsess["list"].append(3), "abc")
        shown = "print join ',', @{Storable::thaw(join '', <STDIN>)->{list}}"
        saved = site.driver.raw_get("abc")
        assert run_perl(perl, "-MStorable", "-e", shown, stdin=saved) == b"1,2,3"
        assert saved[:1] == image[:1]
    assert as_json(site.driver.ttl_of("abc")) > 500
