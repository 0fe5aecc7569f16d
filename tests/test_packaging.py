"""The house: what lies where, which way imports go, and what the distribution says of itself."""

from __future__ import annotations

import ast
import configparser
import fnmatch
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib.metadata import distribution
from pathlib import Path
from typing import NamedTuple

import pytest

import pyramid_kvs

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pyramid_kvs"
TOP_LEVEL = {
    *("pyramid_kvs", "tests", "docs", "pyproject.toml", "setup.py", "setup.cfg", "tox.ini"),
    *("README.rst", "CHANGES.rst", "LICENSE", "MANIFEST.in"),
}
KEPT_FROM_1_0 = [
    *("cache", "kvs", "perlsess", "ratelimit", "serializer", "session", "storable", "testing"),
]

#: Lowest first. A module imports from its own layer, without a cycle, and from lower ones.
#: One that is not listed belongs to the features.
LAYERS = {
    "ground": ["exceptions", "logs"],
    "data": ["_storable_*", "storable", "tagged_json", "serializer", "limits", "perl_*"],
    "contract": ["kvs", "limit_swaps"],
    "drivers": ["drivers", "drivers.*"],
    "settings": ["settings"],
    "assembly": ["components", "responses"],
    "features": ["cache", "session", "ratelimit", "perlsess"],
    "switches": ["", "testing", "kinto", "kinto.*", "scripts", "scripts.*", "debugtoolbar*"],
}
HEIGHTS = {name: height for height, name in enumerate(LAYERS)}
CLIENT_LIBRARIES = {
    "redis": ["drivers.redis*"],
    "memcache": ["drivers.memcache*"],
    "psycopg": ["drivers.postgresql*", "drivers.libpq"],
    "psycopg_pool": ["drivers.postgresql*"],
    "kinto": ["kinto", "kinto.*"],
    "pyramid_debugtoolbar": ["debugtoolbar*"],
}


class Import(NamedTuple):
    """One import at run time: the module that says it, and what it names, in full."""

    module: str
    target: str


def modules() -> dict[str, Path]:
    """Return the package's files by module name, without the package's own."""
    return {_module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def _module_name(path: Path) -> str:
    return (
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        .removesuffix("__init__")
        .rstrip(".")
    )


def imports(module: str, path: Path) -> Iterator[Import]:
    """Yield what a module imports, in functions too, but not for annotations only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in _at_run_time(tree):
        if isinstance(node, ast.Import):
            yield from (Import(module, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = _source(node, path)
            yield from (Import(module, f"{source}.{alias.name}") for alias in node.names)


def _at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _at_run_time(child)


def _source(node: ast.ImportFrom, path: Path) -> str:
    if not node.level:
        return node.module or ""
    folder = path.parents[node.level - 1]
    parts = ("pyramid_kvs", *folder.relative_to(PACKAGE).parts, node.module)
    return ".".join(part for part in parts if part)


def own_imports() -> list[Import]:
    """Return the imports of one module of the package by another."""
    known = modules()
    found = []
    for module, target in all_imports():
        if target.split(".")[0] == "pyramid_kvs":
            name = target.removeprefix("pyramid_kvs").lstrip(".")
            name = name if name in known else name.rpartition(".")[0]
            found.append(Import(module, name))
    return found


def all_imports() -> list[Import]:
    return [found for name, path in modules().items() for found in imports(name, path)]


def height(module: str) -> int:
    """Return how high a module stands in the table above."""
    names = [name for name, patterns in LAYERS.items() if matches(module, patterns)]
    return HEIGHTS[names[0] if names else "features"]


def matches(module: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(module, pattern) for pattern in patterns)


def metadata() -> configparser.SectionProxy:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser["metadata"]


def python(program: str) -> str:
    """Run a program in a fresh interpreter and return what it prints."""
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return result.stdout.strip()


def test_top_level() -> None:
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    names = {line.partition("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in names if not name.startswith(".")} == TOP_LEVEL


def test_imports_go_downwards() -> None:
    upwards = [found for found in own_imports() if height(found.module) < height(found.target)]
    assert upwards == []


def test_imports_make_no_cycle() -> None:
    graph: dict[str, set[str]] = {}
    for module, target in own_imports():
        graph.setdefault(module, set()).add(target)
    TopologicalSorter(graph).prepare()


def test_only_the_upper_half_knows_pyramid() -> None:
    frameworks = ("pyramid", "webob", "zope")
    found = [item for item in all_imports() if item.target.split(".")[0] in frameworks]
    assert found
    assert [item for item in found if height(item.module) < HEIGHTS["settings"]] == []


def test_client_libraries_stay_in_their_driver() -> None:
    foreign = [
        found
        for found in all_imports()
        if not matches(found.module, CLIENT_LIBRARIES.get(found.target.split(".")[0], ["*"]))
    ]
    assert foreign == []


def test_storable_needs_the_standard_library_only() -> None:
    allowed = {*sys.stdlib_module_names, "pyramid_kvs"}
    found = [item for item in all_imports() if matches(item.module, ["storable", "_storable_*"])]
    assert found
    assert [item for item in found if item.target.split(".")[0] not in allowed] == []


def test_importing_loads_no_client_library() -> None:
    program = "import sys, pyramid_kvs; print(sorted({libraries} & set(sys.modules)))"
    assert python(program.format(libraries=set(CLIENT_LIBRARIES))) == "[]"


def test_a_memory_application_loads_no_client_library() -> None:
    program = (
        "import sys; from pyramid.config import Configurator\n"
        "settings = {{'kvs.cache': '{{\"kvs\": \"memory\"}}', 'pyramid.includes': 'pyramid_kvs'}}\n"
        "Configurator(settings=settings).make_wsgi_app()\n"
        "print(sorted({libraries} & set(sys.modules)))"
    )
    assert python(program.format(libraries=set(CLIENT_LIBRARIES))) == "[]"


@pytest.mark.parametrize("name", KEPT_FROM_1_0)
def test_module_of_1_0_imports_alone(name: str) -> None:
    """Each in an interpreter of its own: an import may not rely on another one's."""
    assert python(f"import pyramid_kvs.{name}; print('imported')") == "imported"


def test_version_is_the_same_everywhere() -> None:
    version = metadata()["version"]
    changes = (ROOT / "CHANGES.rst").read_text(encoding="utf-8")
    latest = re.search(r"^(\d\S*) \(", changes, re.MULTILINE)
    assert latest
    assert latest[1] == version
    assert distribution("pyramid_kvs").version == version
    assert pyramid_kvs.__version__ == version


def test_the_build_system_is_declared() -> None:
    """Without it, pip before 23.1 runs ``setup.py install``, whose scripts fail at their start."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.findall(r"^\[.*", text, re.MULTILINE) == ["[build-system]"]
    assert 'requires = ["setuptools", "wheel"]' in text


def test_console_script_loads() -> None:
    points = distribution("pyramid_kvs").entry_points.select(group="console_scripts")
    assert [point.name for point in points] == ["pkvs"]
    assert all(callable(point.load()) for point in points)


def test_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()
