"""``pkvs thaw``: images of Perl's Storable as JSON."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pyramid_kvs import storable
from pyramid_kvs.scripts import pkvs

VALUE = {"user": "Zoë", "raw": b"\xff", "numbers": [1, -2, None]}


def test_thaw_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "image"
    storable.nstore(VALUE, path)
    assert pkvs.main(["thaw", str(path)]) == 0
    output = capsys.readouterr().out
    assert json.loads(output) == {**VALUE, "raw": {"$bytes": "ff"}}
    assert output.count("\n") == 1
    assert pkvs.main(["thaw", "--indent", "2", str(path)]) == 0
    assert capsys.readouterr().out.count("\n") > 5


def give_input(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_thaw_the_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give_input(monkeypatch, storable.freeze([1, "two"]))
    assert pkvs.main(["thaw", "-"]) == 0
    assert capsys.readouterr().out == '[1, "two"]\n'


def test_thaw_encoding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "image"
    path.write_bytes(storable.nfreeze([b"caf\xe9"]))
    assert pkvs.main(["thaw", "--encoding", "latin-1", str(path)]) == 0
    assert json.loads(capsys.readouterr().out) == ["café"]
    assert pkvs.main(["thaw", "--encoding", "none", str(path)]) == 0
    assert json.loads(capsys.readouterr().out) == [{"$bytes": "636166e9"}]
    assert pkvs.main(["thaw", "--encoding", "latin-99", str(path)]) == 1
    assert "latin-99" in capsys.readouterr().err


def test_thaw_of_a_broken_image(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give_input(monkeypatch, storable.nfreeze(list(range(50)))[:-3])
    assert pkvs.main(["thaw", "-"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("pkvs: -: ")
    assert " at byte " in err


def test_thaw_of_a_missing_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert pkvs.main(["thaw", "nowhere"]) == 1
    assert capsys.readouterr().err == "pkvs: nowhere: No such file or directory\n"


def test_thaw_into_a_closed_pipe(tmp_path: Path) -> None:
    path = tmp_path / "image"
    storable.nstore(["x" * 1_000_000], path)
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "pyramid_kvs.scripts.pkvs", "thaw", str(path)],
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")
