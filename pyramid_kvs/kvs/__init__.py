"""The driver contract, and drivers by name: ``KVS(name, ...)`` builds the named driver."""

from __future__ import annotations

from ..serializer import Data
from .breaker import Breaker, Breakers, told_later
from .contract import KVS, driver_class
from .hooks import is_default, named_parameters
from .names import (
    SCHEMES,
    DriverNotInstalled,
    UnknownDriver,
    canonical_name,
    driver_names,
    register,
)
from .observed import Listener, Operation, observe
from .script import (
    PackedArguments,
    PreparedCall,
    RunsScripts,
    RunsScriptsBySlot,
    Script,
    ScriptCall,
    pack_arguments,
    pack_words,
    ttl_word,
)
from .stored import (
    CLAIM_KEY,
    DONE,
    PAUSED,
    Claim,
    Stored,
    Swap,
    SwapRequest,
    decode_key,
    encode_key,
    key_pattern,
    new_owner,
    new_tuple,
    pause,
)

__all__ = [
    "CLAIM_KEY",
    "DONE",
    "KVS",
    "PAUSED",
    "SCHEMES",
    "Breaker",
    "Breakers",
    "Claim",
    "Data",
    "DriverNotInstalled",
    "Listener",
    "Operation",
    "PackedArguments",
    "PreparedCall",
    "RunsScripts",
    "RunsScriptsBySlot",
    "Script",
    "ScriptCall",
    "Stored",
    "Swap",
    "SwapRequest",
    "UnknownDriver",
    "canonical_name",
    "decode_key",
    "driver_class",
    "driver_names",
    "encode_key",
    "is_default",
    "key_pattern",
    "named_parameters",
    "new_owner",
    "new_tuple",
    "observe",
    "pack_arguments",
    "pack_words",
    "pause",
    "register",
    "told_later",
    "ttl_word",
]
