"""What the store has: the records of a session and of the cache, as they are."""

from pyramid.view import view_config

PATH = "/record"
TITLE = "Stored record"
LEAD = "What lies in the store: the record of your session and a cached value, byte for byte."


def includeme(config):
    config.add_route("record", PATH)
    config.add_route("record_state", "/record/state")
    config.add_route("record_add", "/record/add", request_method="POST")


@view_config(route_name="record", renderer="record.html")
def page(request):
    return {}


@view_config(route_name="record_add", renderer="json")
def add(request):
    notes = request.session.setdefault("notes", [])
    notes.append(str(request.json_body["note"])[:60])
    request.cache["newest note"] = {"note": notes[-1], "number": len(notes)}
    return {}


@view_config(route_name="record_state", renderer="json")
def state(request):
    found = {"cache": record(request.cache.client, "newest note")}
    session = request.session
    if not session.new:
        key = session.get_session_key()
        found["session"] = record(session.client, key, f"{key[:8]}…")
    return found


def record(driver, key, shown=None):
    """Return what the driver's store has at a key."""
    data = driver.raw_get(key)
    if data is None:
        return None
    text = data if isinstance(data, str) else data.decode()
    return {
        "key": driver.key_prefix.decode() + (shown or key),
        "ttl": driver.raw_ttl(key),
        "bytes": len(text.encode()),
        "data": text,
    }


SETTINGS = ["kvs.session", "kvs.cache"]
CODE = [add, state, record]
