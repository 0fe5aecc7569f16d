"""The tape of the benchmark records and replays sockets, however a client uses them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.figures.measuring import ROOT

CLIENT = """
import os, socket
from os import read, write
from tests.benchmarks.costs.measures import Tape

tape = Tape()
tape.install()
client, server = socket.socketpair()
buffer = bytearray(9)
replies = []


def ask():
    SEND
    if answers:
        server.sendall(b"reply")
    replies.append(RECEIVE)


answers = True
trips = tape.record(lambda: (ask(), ask()))
assert trips == 2, trips
server.recv(100)
answers = False
tape.replayed(lambda: (ask(), ask()))()
assert replies == [b"reply"] * 4, replies
server.setblocking(False)
try:
    sent = server.recv(100)
except BlockingIOError:
    sent = b""
assert not sent, sent
"""


@pytest.mark.parametrize("send", ["client.sendall", "client.send", "write", "os.write"])
@pytest.mark.parametrize("receive", ["client.recv", "client.recv_into", "read", "os.read"])
def test_no_system_call_is_missed(send: str, receive: str) -> None:
    place = "client.fileno(), " if not send.startswith("client") else ""
    sending = f"{send}({place}b'command')"
    place = "client.fileno(), " if not receive.startswith("client") else ""
    receiving = f"{receive}({place}9)"
    if receive == "client.recv_into":
        receiving = "bytes(buffer[: client.recv_into(buffer)])"
    code = CLIENT.replace("SEND", sending).replace("RECEIVE", receiving)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
