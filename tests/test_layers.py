"""The structure of the package: which module may import which, and what an application loads."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import log_page

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pyramid_kvs"

#: Lowest first. The parts of one layer do not import each other.
LAYERS = [
    ["exceptions", "forks", "messages", "processes"],
    ["logs"],
    ["events", "settings", "storable", "web"],
    ["serializer"],
    ["kvs"],
    ["drivers.pooled", "drivers.resolver"],
    ["drivers.pool"],
    ["drivers.options"],
    ["drivers.memcache", "drivers.memory", "drivers.postgresql", "drivers.redis", "application"],
    ["start", "stores"],
    ["cache", "health", "observe", "perlsess", "ratelimit", "session"],
    ["debugtoolbar"],
    [""],
    ["kinto", "scripts", "testing"],
]
HEIGHTS = {part: height for height, layer in enumerate(LAYERS) for part in layer}

#: The parts that may know the web framework.
WEB_PARTS = {"events", "settings", "web", "application", "stores"} | {
    part for layer in LAYERS[HEIGHTS["stores"] :] for part in layer
}

CLIENT_LIBRARIES = {
    "redis": "drivers.redis",
    "hiredis": "drivers.redis",
    "memcache": "drivers.memcache",
    "psycopg": "drivers.postgresql",
    "kinto": "kinto",
    "opentelemetry": "observe",
    "prometheus_client": "observe",
    "pyramid_debugtoolbar": "debugtoolbar",
}

KEPT_FROM_1_0 = [
    *("cache", "kvs", "perlsess", "ratelimit", "serializer", "session", "storable", "testing"),
]


class Import(NamedTuple):
    """One import, wherever it is in the module: at the top, in a function, for annotations."""

    module: str
    target: str


def modules() -> dict[str, Path]:
    """Return the files of the package by module name, without the name of the package."""
    return {_module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def _module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports(module: str, path: Path) -> Iterator[Import]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (Import(module, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = _source(node, path)
            yield from (Import(module, f"{source}.{alias.name}") for alias in node.names)


def _source(node: ast.ImportFrom, path: Path) -> str:
    if not node.level:
        return node.module or ""
    folder = path.parents[node.level - 1]
    parts = ("pyramid_kvs", *folder.relative_to(PACKAGE).parts, node.module)
    return ".".join(part for part in parts if part)


def all_imports() -> list[Import]:
    return [found for name, path in modules().items() for found in imports(name, path)]


def own_imports() -> list[Import]:
    """Return the imports of one module of the package by another."""
    known = modules()
    found = []
    for module, target in all_imports():
        if target.split(".")[0] == "pyramid_kvs":
            name = target.removeprefix("pyramid_kvs").lstrip(".")
            found.append(Import(module, name if name in known else name.rpartition(".")[0]))
    return found


def part_of(module: str) -> str:
    """Return the part of the package that a module belongs to, as :data:`LAYERS` names it."""
    names = module.split(".")
    return ".".join(names[:2]) if names[0] == "drivers" else names[0]


def is_allowed(module: str, target: str) -> bool:
    part, of_target = part_of(module), part_of(target)
    return part == of_target or HEIGHTS[of_target] < HEIGHTS[part]


def python(program: str, *arguments: str) -> str:
    """Run a program in a fresh interpreter and return what it prints."""
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return result.stdout.strip()


def test_the_layers_have_every_module_and_no_other() -> None:
    assert {part_of(module) for module in modules()} - {"drivers"} == HEIGHTS.keys()


def test_the_page_about_development_describes_every_part() -> None:
    page = (ROOT / "docs/development.rst").read_text(encoding="utf-8")
    table = page.partition("\nStructure of the package\n")[2].partition("\nWhere to find")[0]
    described = {name.removesuffix(".py").rstrip("/") for name in re.findall("``([^`]+)``", table)}
    parts = {part.partition(".")[0] or "__init__" for part in HEIGHTS}
    assert parts - described == set()


def test_imports_go_downwards() -> None:
    assert [found for found in own_imports() if not is_allowed(*found)] == []


def test_imports_make_no_circle() -> None:
    """Imports inside functions and for annotations count too."""
    graph: dict[str, set[str]] = {}
    for module, target in own_imports():
        graph.setdefault(module, set()).add(target)
    TopologicalSorter(graph).prepare()


def test_the_lower_half_does_not_know_the_web_framework() -> None:
    frameworks = ("pyramid", "webob", "zope")
    found = [item for item in all_imports() if item.target.split(".")[0] in frameworks]
    assert found
    assert [item for item in found if part_of(item.module) not in WEB_PARTS] == []


def test_client_libraries_stay_in_their_driver() -> None:
    foreign = [
        found
        for found in all_imports()
        if CLIENT_LIBRARIES.get(found.target.split(".")[0], part_of(found.module))
        != part_of(found.module)
    ]
    assert foreign == []


def test_storable_needs_the_standard_library_only() -> None:
    allowed = {*sys.stdlib_module_names, "pyramid_kvs"}
    found = [item for item in all_imports() if part_of(item.module) == "storable"]
    assert found
    assert [item for item in found if item.target.split(".")[0] not in allowed] == []


def test_storable_works_without_pyramid() -> None:
    program = (
        "import sys; sys.modules.update(dict.fromkeys(['pyramid', 'webob', 'zope', 'redis']))\n"
        "from pyramid_kvs.storable import nfreeze, thaw; print(thaw(nfreeze([1])))"
    )
    assert python(program) == "[1]"


def test_importing_loads_no_client_library() -> None:
    program = f"import sys, pyramid_kvs; print(sorted({set(CLIENT_LIBRARIES)} & set(sys.modules)))"
    assert python(program) == "[]"


MEMORY = {"kvs": "memory"}
PERL = {"perlsess", "storable"}
STORES = {"drivers.redis", "drivers.memcache", "drivers.postgresql"}
#: Every application loads the view option ``ratelimit``, but only some have limits.
LIMITS = {
    *("ratelimit.counting", "ratelimit.decision", "ratelimit.identity", "ratelimit.limiter"),
    *("ratelimit.limits", "ratelimit.registry", "ratelimit.response", "ratelimit.store"),
    *("ratelimit.outage", "ratelimit.outcome", "ratelimit.proxies", "ratelimit.views.late"),
    "ratelimit.views.matcher",
}


@pytest.mark.parametrize(
    ("settings", "unused"),
    [
        (
            {},
            {"cache", "health", "session", "drivers", "kinto", "observe"} | PERL | STORES | LIMITS,
        ),
        ({"kvs.cache": MEMORY}, {"session", "kinto", "scripts"} | PERL | STORES | LIMITS),
        ({"kvs.session": MEMORY}, {"cache", "kinto"} | PERL | STORES | LIMITS),
        ({"kvs.session": MEMORY, "kvs.ratelimit": {}}, {"cache", "kinto"} | PERL | STORES),
        ({"kvs.perlsess": MEMORY}, {"cache", "session", "kinto"} | STORES | LIMITS),
        ({"kvs.cache": {"kvs": "redis"}}, PERL | STORES - {"drivers.redis"}),
    ],
)
def test_an_application_loads_what_it_uses(
    settings: dict[str, dict[str, str]], unused: set[str]
) -> None:
    program = (
        "import sys; from pyramid.config import Configurator\n"
        f"settings = {{'pyramid.includes': 'pyramid_kvs', **{settings!r}}}\n"
        "Configurator(settings=settings).make_wsgi_app()\n"
        "import json; print(json.dumps(sorted(sys.modules)))"
    )
    loaded = json.loads(python(program))
    of_package = {name.removeprefix("pyramid_kvs.") for name in loaded if "pyramid_kvs." in name}
    assert of_package & unused == set()
    drivers = {part_of(name) for name in of_package}
    used = {library for library, part in CLIENT_LIBRARIES.items() if part in drivers}
    used.add("opentelemetry")  # redis-py imports it if it is installed
    assert set(loaded) & set(CLIENT_LIBRARIES) <= used


@pytest.mark.parametrize("name", KEPT_FROM_1_0)
def test_a_module_of_1_0_can_be_imported_alone(name: str) -> None:
    """Each one in a fresh interpreter: an import may not rely on another one's."""
    assert python(f"import pyramid_kvs.{name}; print('imported')") == "imported"


def test_modules_are_imported_on_a_system_without_fork_and_poll() -> None:
    """On Windows, for example. A driver that cannot work there says so in one line."""
    program = """
        import importlib, os, select, sys
        for name in ("fork", "register_at_fork", "fchmod"):
            delattr(os, name)
        for name in ("poll", "epoll", "POLLIN", "POLLOUT"):
            delattr(select, name)
        import socket  # after the changes, because it imports selectors
        del socket.AF_UNIX
        sys.modules["fcntl"] = None
        failed = {}
        for name in sys.argv[1:]:
            try:
                importlib.import_module(name)
            except Exception as error:
                failed[name] = str(error)
        print("\\n".join(sorted({*failed.values()})))
        from pyramid.config import Configurator
        settings = dict.fromkeys(("kvs.cache", "kvs.session"), {"kvs": "memory"})
        settings.update({"kvs.ratelimit": "{}", "pyramid.includes": "pyramid_kvs"})
        Configurator(settings=settings).make_wsgi_app()
    """
    names = [f"pyramid_kvs.{name}".rstrip(".") for name in modules() if part_of(name) != "kinto"]
    assert python(textwrap.dedent(program), *names).splitlines() == [
        "the memcache driver needs select.poll, which this system does not have",
        "the postgresql driver needs select.poll, which this system does not have",
    ]


def test_no_folder_has_too_many_modules() -> None:
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    counts = {str(folder.relative_to(ROOT)): len(list(folder.glob("*.py"))) for folder in folders}
    assert {folder: count for folder, count in counts.items() if count > 13} == {}


def test_loggers_are_the_documented_ones() -> None:
    """Log configuration must not break when code moves between modules."""
    assert sorted(log_page.listed_loggers()) == sorted(log_page.loggers())


def test_every_log_message_is_documented() -> None:
    """Add a row to the table of ``docs/logs.rst``: logger, level, message, what to do."""
    assert log_page.undescribed() == []
