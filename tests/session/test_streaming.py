"""A session that is used after the response has begun, or after the end of its request."""

from __future__ import annotations

import gc
from typing import Any

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from tests.session.apps import COOKIE, Store, make_app, new_session


def test_is_read_for_the_first_time_after_the_request(store: Store) -> None:
    kept: list[Any] = []

    def configure(config: Configurator) -> None:
        config.add_route("keep", "/keep")
        config.add_view(keep, route_name="keep")

    def keep(request: Request) -> Response:
        kept.append(request.session)
        return Response("kept")

    app = make_app(store.options, configure)
    app.set_cookie(COOKIE, new_session(store.factory(), name="ann"))
    app.get("/keep")
    gc.collect()  # nothing but the list has the session now
    assert kept[0]["name"] == "ann"
