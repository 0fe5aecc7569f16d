"""Check that the sdist holds every file of the repository, and the wheel the whole package."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile

LEFT_OUT = (".git",)


def main(sdist: str, wheel: str) -> str | int:
    """Return the differences, or 0 if there are none."""
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    package = {name for name in tracked if name.startswith("pyramid_kvs/")}
    strays = {name for name in in_wheel - package if ".dist-info/" not in name}
    problems = [
        *(f"not in the sdist: {name}" for name in tracked if name not in in_sdist | {".gitignore"}),
        *(f"not in the wheel: {name}" for name in package - in_wheel),
        *(f"must not be in the wheel: {name}" for name in strays),
    ]
    return "\n".join(problems) or 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
