"""The answer to a request whose changes could not be saved."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from pyramid.config import Configurator
from webtest import TestApp

from pyramid_kvs import exceptions
from pyramid_kvs.web.failures import FailedSaves, answer_failed_save


def app_that_fails(error: Exception, view_of_error: Any = None) -> TestApp:
    """Build an application that saves after the view has returned, as sessions do, and fails."""
    failed = FailedSaves(logging.getLogger("pyramid_kvs.tests"), "something")

    def save(request: Any, response: Any) -> None:
        answer_failed_save(request, response, error, failed)

    def view(request: Any) -> Any:
        request.add_response_callback(save)
        request.response.set_cookie("id", "new")
        request.response.headers["X-Kept"] = "yes"
        request.response.etag = "old"
        request.response.text = "done"
        return request.response

    config = Configurator(settings={"pyramid.includes": "pyramid_kvs"})
    config.add_route("home", "/")
    config.add_view(view, route_name="home")
    if view_of_error is not None:
        config.add_exception_view(view_of_error, context=type(error))
    return TestApp(config.make_wsgi_app())


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (exceptions.KVSUnavailable("down"), 503),
        (exceptions.KVSError("refused"), 503),
        (exceptions.KVSConflict("busy"), 503),
        (exceptions.SessionConflict("key 'a'"), 409),
    ],
)
def test_an_error_of_the_store_is_answered(
    error: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    response = app_that_fails(error).get("/", status=status)
    assert "done" not in response.text
    assert str(error) not in response.text
    assert ("Retry-After" in response.headers) is (status == 503)
    assert response.headers["X-Kept"] == "yes"
    assert not {"Set-Cookie", "ETag"} & set(response.headers)
    assert caplog.messages[-1].startswith(
        f"something was not saved ({type(error).__name__}): answered {status}"
    )
    assert caplog.messages[-1].endswith(f": {error}")


@pytest.mark.parametrize(
    ("error", "lines"), [(exceptions.KVSUnavailable("down"), 1), (exceptions.KVSError("no"), 5)]
)
def test_unavailable_is_logged_once_a_minute(
    error: Exception, lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_that_fails(error)
    for _ in range(5):
        app.get("/", status=503)
    assert sum("was not saved" in message for message in caplog.messages) == lines


@pytest.mark.parametrize(
    "error",
    [
        exceptions.CodecError("not JSON"),
        exceptions.KVSNotSupported("cannot"),
        exceptions.ValueTooLarge("large"),
        exceptions.SessionTooLarge("large"),
        TypeError("not JSON"),
    ],
)
def test_a_mistake_of_the_application_reaches_the_server(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(type(error)):
        app_that_fails(error).get("/")
    name = type(error).__name__
    assert caplog.messages == [f"something was not saved ({name}): the error is raised: {error}"]


def test_an_exception_view_of_the_application_answers() -> None:
    def teapot(error: Exception, request: Any) -> Any:
        request.response.status = 418
        request.response.text = "tea"
        return request.response

    app = app_that_fails(ValueError("bad"), teapot)
    response = app.get("/", status=418)
    assert response.text == "tea"
    assert response.headers["X-Kept"] == "yes"


def test_a_view_that_reports_success_does_not_answer() -> None:
    def fine(error: Exception, request: Any) -> Any:
        return request.response

    error = exceptions.KVSUnavailable("down")
    app_that_fails(error, fine).get("/", status=503)
