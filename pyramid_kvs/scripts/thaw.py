"""``pkvs thaw``: an image of Perl's Storable as JSON."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .. import storable
from ..storable import tagged_json
from .application import Command, Failed, print_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", help="an image of Perl's Storable; - means standard input"
    )
    parser.add_argument(
        "--encoding",
        default="utf-8",
        help="of strings without Perl's UTF-8 flag (utf-8); 'none' leaves them as bytes",
    )
    parser.add_argument("--indent", type=int, metavar="N", help="spaces for each level of nesting")


def run(args: argparse.Namespace) -> int:
    """Print a Storable image as JSON, with tags for what JSON cannot represent."""
    encoding = None if args.encoding == "none" else args.encoding
    try:
        value = storable.thaw(_read(args.file), encoding=encoding)
        json = tagged_json.dumps(value, indent=args.indent)
    except (OSError, ValueError, LookupError) as error:
        raise Failed(f"{args.file}: {getattr(error, 'strerror', None) or error}") from error
    print_line(json)
    return 0


def _read(path: str) -> bytes:
    if path == "-":
        return sys.stdin.buffer.read(storable.MAX_SIZE + 1)
    with Path(path).open("rb") as file:
        return file.read(storable.MAX_SIZE + 1)


THAW = Command("print an image of Perl's Storable as JSON", add_arguments, run)
