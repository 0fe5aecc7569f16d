"""Commands as they go over the wire to redis, and the scripts of the driver."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from ...kvs import CLAIM_KEY, Data, PackedArguments, Script, pack_words

#: The maximum number of keys in one command, of commands in one send, and of bytes in one send.
BATCH = 5000
BATCH_BYTES = 2**24

T = TypeVar("T")


def pack(*words: bytes) -> bytes:
    """Return a command as it goes over the wire: each word with its length before it."""
    return b"*%d\r\n" % len(words) + pack_words(words)


def pack_script(call: bytes, keys: Sequence[bytes], args: PackedArguments) -> bytes:
    """Return the call of a script as it goes over the wire.

    :param call: ``EVALSHA`` and the hash, or ``EVAL`` and the source, packed.
    """
    number = len(keys)
    words = (3 + number + args.number, call, len(str(number)), number, pack_words(keys), args.data)
    return b"*%d\r\n%b$%d\r\n%d\r\n%b%b" % words


def by_source(script: Script) -> bytes:
    """Return the beginning of a script's call for a server that does not know its hash."""
    return pack_words((b"EVAL", script.source))


def scan_command(cursor: bytes, match: bytes) -> bytes:
    """Return the command for the next keys after a cursor."""
    return pack(b"SCAN", cursor, b"MATCH", match, b"COUNT", b"1000")


# The most frequent commands, ready to be filled in: a fifth of the time that pack() takes.
GET = b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n"
GETEX_PX = b"*4\r\n$5\r\nGETEX\r\n$%d\r\n%b\r\n$2\r\nPX\r\n$%d\r\n%b\r\n"
SET_PX = b"*5\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$2\r\nPX\r\n$%d\r\n%b\r\n"


def encoded(data: Data) -> bytes:
    return data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")


def batches(items: list[T]) -> Iterator[list[T]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def sends(commands: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Group packed commands into what goes with one send."""
    group: list[bytes] = []
    size = 0
    for command in commands:
        if group and (len(group) == BATCH or size + len(command) > BATCH_BYTES):
            yield group
            group, size = [], 0
        group.append(command)
        size += len(command)
    if group:
        yield group


# A Lua number holds 53 bits. Beyond them, the exact count is the value at the key.
INCR = Script("""
local count = redis.call('INCRBY', KEYS[1], ARGV[1])
if redis.call('PTTL', KEYS[1]) < 0 then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
if count > 9007199254740991 or count < -9007199254740991 then
    return redis.call('GET', KEYS[1])
end
return count
""")

# ARGV: '1' for data ('' removes), milliseconds ('' for no expiry), data, and the expected value
# (left out if the key must be absent).
SWAP = Script("""
local current = redis.call('GET', KEYS[1])
if current ~= (ARGV[4] or false) then
    return {current}
end
if ARGV[1] == '' then
    redis.call('DEL', KEYS[1])
elseif ARGV[2] == '' then
    redis.call('SET', KEYS[1], ARGV[3])
else
    redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[2])
end
return 1
""")

#: The most frequent swap, of data for other data that expire, ready to be filled in: the key,
#: milliseconds, data and the expected value, each with its length before it.
SWAP_PX = b"*8\r\n" + SWAP.by_hash + b"$1\r\n1\r\n$%d\r\n%b\r\n$1\r\n1\r\n" + 3 * b"$%d\r\n%b\r\n"

# KEYS: the key, and that of its claim. ARGV: how many milliseconds stale data have left at most,
# the lifetime of the claim, and '1' to claim a key without data (or left out). The reply is the
# data if they are fresh, or else the data, the owner if the caller has the claim, and what is left.
CLAIM = Script("""
local data = redis.call('GET', KEYS[1])
local left = -1
if data then
    left = redis.call('PTTL', KEYS[1])
    if left < 0 or left > tonumber(ARGV[1]) then
        return data
    end
elseif not ARGV[3] then
    return data
end
local now = redis.call('TIME')
local owner = '!claim ' .. now[1] .. '-' .. now[2]
if not redis.call('SET', KEYS[2], owner, 'NX', 'PX', ARGV[2]) then
    owner = false
end
return {data, owner, left}
""")


def claim_call(prefix: bytes, args: PackedArguments) -> bytes:
    """Return the call of CLAIM for keys of a prefix, ready to be filled in.

    What is left are the length and bytes of the key, and the length of the claim's key and the key
    again. A hit is then packed in a fifth of the time that :func:`pack_script` takes.
    """
    head = b"*%d\r\n%b$1\r\n2\r\n" % (5 + args.number, CLAIM.by_hash)
    claim_key = claim_of(prefix.replace(b"%", b"%%"), b"%b")
    return head + b"$%d\r\n%b\r\n$%d\r\n" + claim_key + b"\r\n" + args.data


def claim_of(prefix: bytes, full_key: bytes) -> bytes:
    """Return the key of a claim, with the full key as the part that a cluster hashes."""
    return b"%b%b{%b}" % (prefix, CLAIM_KEY.encode(), full_key)


# KEYS: that of the claim. ARGV: its owner, and the milliseconds of a pause ('' for none).
RELEASE = Script("""
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then
    return 0
end
if ARGV[2] == '' then
    return redis.call('DEL', KEYS[1])
end
redis.call('SET', KEYS[1], ARGV[1] .. ' paused', 'PX', ARGV[2])
return 1
""")
