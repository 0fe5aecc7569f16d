"""The directive ``add_kvs_driver``, and what belongs to one application only."""

from __future__ import annotations

from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationConflictError, ConfigurationError
from webtest import TestApp

from pyramid_kvs.kvs import KVS
from tests.kvs.old_drivers import ClientOnly, WithHooks


def app_with_driver(name: str, *drivers: tuple[str, Any]) -> TestApp:
    config = Configurator(settings={"kvs.cache": {"kvs": name}})
    config.include("pyramid_kvs")
    for driver in drivers:
        config.add_kvs_driver(*driver)
    config.add_route("home", "/")
    config.add_view(
        lambda request: repr(request.cache.client), route_name="home", renderer="string"
    )
    return TestApp(config.make_wsgi_app())


def test_a_driver_may_be_added_after_the_include() -> None:
    app = app_with_driver("mine", ("mine", ClientOnly))
    assert "ClientOnly 'mine' prefix=b'cache::'" in app.get("/").text
    app = app_with_driver("dotted", ("dotted", "pyramid_kvs.drivers.memory:MemoryKVS"))
    assert "MemoryKVS 'dotted'" in app.get("/").text


class Refuses(KVS):
    def _create_client(self, **kwargs: Any) -> None:
        raise RuntimeError("no such host: redis://me:hunter2@host")


@pytest.mark.parametrize(
    ("driver", "message"),
    [
        (dict, "not a subclass of pyramid_kvs.kvs.KVS"),
        ("Nowhere", "kvs.cache: kvs: "),
        ("no_such_package.kvs:Driver", "pip install no_such_package"),
        ("json:Driver", "module 'json' has no attribute 'Driver'"),
        (Refuses, "the mine client refuses {}: no such host"),
    ],
)
def test_a_driver_that_cannot_be_made_names_the_setting(driver: Any, message: str) -> None:
    config = Configurator(settings={"kvs.cache": {"kvs": "mine"}})
    config.include("pyramid_kvs")
    config.add_kvs_driver("mine", driver)
    with pytest.raises(ConfigurationError) as info:
        config.commit()
    assert "ConfigurationError'>: kvs.cache: " in str(info.value)
    assert message in str(info.value)
    assert "hunter2" not in str(info.value)


def test_a_driver_belongs_to_its_application() -> None:
    app_with_driver("mine", ("mine", ClientOnly))
    with pytest.raises(ConfigurationError, match="unknown driver 'mine'"):
        app_with_driver("mine")


def test_two_drivers_of_one_name_conflict() -> None:
    with pytest.raises(ConfigurationConflictError):
        app_with_driver("mine", ("mine", ClientOnly), ("mine", WithHooks))


def test_two_applications_share_no_store() -> None:
    def build() -> TestApp:
        config = Configurator(settings={"kvs.cache": '{"kvs": "memory"}'})
        config.include("pyramid_kvs")
        config.add_route("home", "/")
        config.add_view(lambda request: request.cache.incr("n"), route_name="home", renderer="json")
        return TestApp(config.make_wsgi_app())

    one, other = build(), build()
    assert [one.get("/").json, one.get("/").json, other.get("/").json] == [1, 2, 1]


@pytest.mark.parametrize("setting", ["kvs.cache", "kvs.session", "kvs.ratelimit", "kvs.perlsess"])
def test_a_feature_that_is_set_after_the_include_is_not_off_in_silence(setting: str) -> None:
    """As in a main() that adds settings, when the ini file has included the library."""
    config = Configurator(settings={"pyramid.includes": "pyramid_kvs"})
    config.add_settings({setting: {"kvs": "memory"}})
    with pytest.raises(ConfigurationError, match=f"{setting} was set after .* was included"):
        config.make_wsgi_app()
