"""A session of a Perl application, read and changed in place."""

import secrets

from pyramid.view import view_config

from pyramid_kvs.kvs import KVS

PATH = "/perl"
TITLE = "Perl"
LEAD = "A session that a Perl application has stored. Pyramid reads it, and changes it in place."

#: Written by Perl's Storable::nfreeze:
#: {__user => "zoe", cart => [{sku => "tea", count => 2}, {sku => "cup", count => 1}], visits => 41}
IMAGE = bytes.fromhex(
    "050b03000000030a037a6f65000000065f5f75736572040200000002040300000002088200000005636f756e74"
    "0a0374656100000003736b75040300000002088100000005636f756e740a0363757000000003736b7500000004"
    "6361727408a900000006766973697473"
)


def includeme(config):
    config.add_route("perl", PATH)
    config.add_route("perl_log_in", "/perl/log-in", request_method="POST")
    config.add_route("perl_state", "/perl/state")
    config.add_route("perl_visit", "/perl/visit", request_method="POST")
    # The store as the Perl application uses it.
    options = config.registry.settings["kvs.perlsess"]
    config.registry["demo.perl"] = KVS(options["kvs"], options["kvs_kwargs"], "perlsess::")


@view_config(route_name="perl", renderer="perl.html")
def page(request):
    return {}


@view_config(route_name="perl_log_in", renderer="json")
def log_in_with_perl(request):
    """Do what the Perl application does: store a session, and set its cookie."""
    session_id = secrets.token_hex(16)
    request.registry["demo.perl"].raw_set(session_id, IMAGE, 1200)
    request.response.set_cookie("demo_perl", session_id, httponly=True, samesite="Lax")
    return {}


@view_config(route_name="perl_visit", renderer="json")
def visit(request):
    if request.perlsess.is_found:
        request.perlsess["visits"] += 1
        request.perlsess["seen_by"] = "pyramid"
    return {}


@view_config(route_name="perl_state", renderer="json")
def state(request):
    if not request.perlsess.is_found:
        return {}
    store = request.registry["demo.perl"]
    data = store.raw_get(request.perlsess.id)
    return {"values": dict(request.perlsess), "data": data.hex()}


SETTINGS = ["kvs.perlsess"]
CODE = [visit, state]
