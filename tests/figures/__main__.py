"""Measure all figures and write the table; see :mod:`tests.figures`."""

from __future__ import annotations

import argparse
import json
import shutil
import sys

from tests.figures import measuring


def main() -> str | None:
    parser = argparse.ArgumentParser(prog="python -m tests.figures")
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--without", default="", help=argparse.SUPPRESS)
    parser.add_argument("--counted", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--traced", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    measuring.without([name for name in arguments.without.split(",") if name])
    if arguments.counted:
        print(json.dumps(measuring.count(arguments.url)))
    elif arguments.traced:
        measuring.trace(arguments.url)
    elif shutil.which("strace") is None:
        return "tests.figures: the table needs strace: apt-get install strace"
    else:
        write_table()
    return None


def write_table() -> None:
    from tests.figures import table
    from tests.servers import RedisServer

    with RedisServer() as server:
        parts = {
            table.title(missing): measuring.measured(server.url, missing)
            for missing in ([], ["hiredis"])
        }
    table.write(measuring.versions(), parts)
    print(table.PATH.read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    sys.exit(main())
