"""Perl processes, and the images that Perl makes and reads."""

from __future__ import annotations

import subprocess


def run_perl(perl: str, *words: str, stdin: bytes = b"") -> bytes:
    """Return the output of a perl process. If perl fails, so does the test."""
    done = subprocess.run([perl, *words], input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout


def perl_image(perl: str, expression: str, function: str = "nfreeze") -> bytes:
    """Return the image that perl makes of a reference."""
    script = (
        "use strict; use utf8; binmode STDOUT; $Storable::canonical = 1;"
        f"print Storable::{function}({expression})"
    )
    return run_perl(perl, "-MStorable", "-e", script)


def perl_dump(perl: str, image: bytes) -> str:
    """Return what perl thaws from an image, as Data::Dumper writes it."""
    script = (
        "use Data::Dumper; ($Data::Dumper::Sortkeys, $Data::Dumper::Indent,"
        " $Data::Dumper::Useqq, $Data::Dumper::Terse) = (1, 0, 1, 1);"
        " binmode STDIN; local $/; print Dumper(Storable::thaw(<STDIN>))"
    )
    return run_perl(perl, "-MStorable", "-e", script, stdin=image).decode()
