"""The demo: one page that uses the session, the cache and the rate limit.

``demo.ini`` names the store.
"""

import time
from html import escape
from pathlib import Path
from string import Template

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPSeeOther
from pyramid.response import Response

PAGE = Template((Path(__file__).parent / "page.html").read_text())


def main(global_config, **settings):
    """Return the WSGI application."""
    config = Configurator(settings=settings)
    config.add_route("home", "/")
    config.add_route("greet", "/greet", request_method="POST")
    config.add_route("forget", "/forget", request_method="POST")
    config.add_route("recompute", "/recompute", request_method="POST")
    config.add_route("ping", "/ping")
    config.add_view(home, route_name="home")
    config.add_view(greet, route_name="greet", require_csrf=True)
    config.add_view(forget, route_name="forget", require_csrf=True)
    config.add_view(recompute, route_name="recompute", require_csrf=True)
    config.add_view(ping, route_name="ping", renderer="json")
    return config.make_wsgi_app()


# -- the session: a visit counter and a flash message ------------------------------------------


def count_visit(session):
    session["visits"] = session.get("visits", 0) + 1
    return session["visits"]


def greet(request):
    name = request.POST.get("name", "").strip()[:40] or "stranger"
    request.session.flash(f"Hello, {name}!")
    return HTTPSeeOther("/")


def forget(request):
    request.session.invalidate()
    return HTTPSeeOther("/")


# -- the cache: the result of a slow computation --------------------------------------------------


def slow_computation():
    started = time.time()
    time.sleep(0.5)
    primes = [n for n in range(2, 10_000) if all(n % d for d in range(2, int(n**0.5) + 1))]
    return {"primes": len(primes), "took": round(time.time() - started, 2), "made_at": started}


def recompute(request):
    request.cache.delete("primes")
    return HTTPSeeOther("/")


# -- the pages ---------------------------------------------------------------------------------


def home(request):
    visits = count_visit(request.session)
    computed = request.cache.get_or_create("primes", slow_computation, ttl=30)
    messages = "".join(
        f'<p class="flash">{escape(message)}</p>' for message in request.session.pop_flash()
    )
    page = PAGE.substitute(
        visits=visits,
        messages=messages,
        csrf_token=request.session.get_csrf_token(),
        primes=computed["primes"],
        took=computed["took"],
        age=round(time.time() - computed["made_at"]),
        expires=round(request.cache.ttl("primes")),
        remaining=request.ratelimit.remaining,
        limit=request.ratelimit.limit,
        store=escape(request.cache.client.kvs),
    )
    return Response(page)


def ping(request):
    return {"remaining": request.ratelimit.remaining}
