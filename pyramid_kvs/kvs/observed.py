"""Drivers that tell listeners about each operation.

A driver that is observed gets a class that inherits from its own class, in which each method of
the contract is timed. A driver that nobody observes keeps its class, so that nothing is slower.

An operation is the outermost method that was called. The hooks that it runs add to its figures.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import logging
import types
from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

from ..logs import ThrottledLog, fingerprint
from .figures import KINDS, Args, Call, Kind, Note, current
from .names import canonical_name
from .stored import new_tuple

log = logging.getLogger("pyramid_kvs.observe")

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

#: The drivers of the library, whose own classes of errors are private.
_DRIVERS = f"{__package__.rpartition('.')[0]}.drivers."


class Operation(NamedTuple):
    """What listeners are told about an operation: no id, no key, no token and no value."""

    #: The name of the driver's method, without ``raw_``: ``"get"``, ``"swap"``, ``"run_script"``.
    operation: str
    #: The setting whose store it is, for example ``kvs.cache``.
    setting: str
    #: The name of the driver, for example ``redis``.
    driver: str
    #: ``host:port``, or the path of a socket. Several servers are separated by commas. It is empty
    #: for the memory driver.
    server: str
    #: How many keys the operation is about.
    keys: int
    #: How many keys were read and found.
    hits: int
    #: The bytes of the data that were sent and received, without keys and commands.
    bytes_sent: int
    bytes_received: int
    #: The time that it took.
    seconds: float
    #: The name of the exception's class, for example ``KVSUnavailable``, or ``None``.
    error: str | None
    #: How many connections it took from the pool. It is 0 for drivers without a pool.
    round_trips: int
    #: How many keys were read and not found.
    misses: int


Listener = Callable[[Operation], object]


def key_fingerprints() -> list[str]:
    """Return what replaces the keys of the operation that a listener is being told about.

    See :func:`pyramid_kvs.logs.fingerprint`.
    """
    call = current.get()
    found = call.args[1] if call is not None and len(call.args) > 1 else ()
    keys = found if isinstance(found, list) else [found]
    return [fingerprint(key) for key in keys if isinstance(key, str)]


class Observer:
    """Tells listeners about the operations of one driver.

    :param listeners: those of the application, of which there may be more later.
    """

    def __init__(self, setting: str, driver: str, server: str, listeners: list[Listener]) -> None:
        self.setting = setting
        self.driver = driver
        self.server = server
        self.listeners = listeners
        #: By the names of listeners, so that the failures of one do not hide those of another.
        self._logs: dict[str, ThrottledLog] = {}

    def log_failure(self, listener: Listener, error: Exception) -> None:
        name = getattr(listener, "__qualname__", type(listener).__qualname__)
        throttled = self._logs.get(name) or self._logs.setdefault(name, ThrottledLog(log))
        throttled.error("the listener %s raised %s", name, type(error).__name__)


class Observed:
    """Marks the class of an observed driver."""

    _observer: Observer

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Keep what a driver does with its subclasses away from its observed class."""


def observe(driver: Any, setting: str, server: str, listeners: list[Listener]) -> None:
    """Have the operations of a driver told to listeners. A second call changes nothing."""
    if isinstance(driver, Observed):
        return
    observer = Observer(setting, canonical_name(driver.kvs), server, listeners)
    _set_class(driver, observed_class(driver, observer))
    for pool in driver.connection_pools():
        pool.count_round_trips()


#: Sets the class of an object whose own class has an attribute ``__class__``, too.
_set_class = vars(object)["__class__"].__set__


def observed_class(driver: Any, observer: Observer) -> type[Any]:
    """Return a class for an observed driver, made of the class that it has.

    Methods that are attributes of the driver itself become methods of the class.
    """
    cls = type(driver)
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "_observer": observer}
    methods = {
        name: Method(name, kind, driver, observer).observed()
        for name, kind in KINDS.items()
        if hasattr(cls, name) or name in vars(driver)
    }
    return types.new_class(
        cls.__name__, (Observed, cls), exec_body=lambda body: body.update(names, **methods)
    )


# -- methods ---------------------------------------------------------------------------------


class Method:
    """A method of a driver, and how it is observed.

    What runs in each call is written for speed: the arguments of a method are the tuple that the
    call has already made, with the driver first.
    """

    def __init__(self, name: str, kind: Kind, driver: Any, observer: Observer) -> None:
        self._parameters = ["self", *_parameters(getattr(driver, name))]
        run = _function(driver, name)
        is_script = name in ("run_packed", "run_prepared")
        self._operation = "run_script" if is_script else name.removeprefix("raw_")
        self._kind = kind
        self._observer = observer
        self._run = _as_list(run) if name == "get_keys" else run

    def observed(self) -> Callable[..., Any]:
        """Return the method to call instead: it is an operation, or belongs to one."""
        parameters, original, (_, note, prepare) = self._parameters, self._run, self._kind
        is_hook, tell = note is not None, self._telling()
        get_current, set_current = current.get, current.set

        @functools.wraps(original)
        def observed(*args: Any, **kwargs: Any) -> Any:
            run, driver, outer = original, args[0], get_current()
            if kwargs:
                args = _positional(parameters, args, kwargs)
                run = functools.partial(run, **kwargs)
            if outer is not None and (outer.driver is driver or outer.is_told):
                if note is None or outer.is_in_hook:
                    return run(*args)
                return _add(outer, run, args, note)
            if prepare is not None:
                args = prepare(args)
            call = Call()
            call.driver, call.args = driver, args
            call.is_in_hook, call.is_told = is_hook, False
            call.hits = call.misses = call.bytes_sent = call.bytes_received = call.round_trips = 0
            try:
                set_current(call)
                began = perf_counter()
                try:
                    result = run(*args)
                except BaseException as error:
                    tell(call, perf_counter() - began, _name_of(error), None)
                    raise
                tell(call, perf_counter() - began, None, result)
                return result
            finally:
                # A greenlet that a listener started has the same context.
                call.driver, call.is_told, call.args = None, False, ()
                if outer is not None and outer.driver is not None:
                    set_current(outer)

        return observed

    def _telling(self) -> Callable[[Call, float, str | None, Any], None]:
        """Return the function that tells the listeners about an operation that has ended.

        It gets the operation, its time, and what it raised or returned.
        """
        operation, (keys, note, _), observer = self._operation, self._kind, self._observer
        setting, name, server = observer.setting, observer.driver, observer.server
        fixed = keys if isinstance(keys, int) else None  # faster than a call

        def tell(call: Call, took: float, error: str | None, result: Any) -> None:
            count = fixed
            try:
                if count is None:
                    count = keys(call.args, result)  # type: ignore[operator]
                if error is None and note is not None:
                    note(call, call.args, result)
            except Exception:  # noqa: BLE001, S110 (what the contract does not know)
                pass
            told = new_tuple(Operation, (
                operation, setting, name, server, count or 0, call.hits,
                call.bytes_sent, call.bytes_received, took, error, call.round_trips, call.misses,
            ))  # fmt: skip
            call.is_told = call.is_in_hook = True
            for listener in observer.listeners:
                try:
                    listener(told)
                except Exception as raised:  # noqa: BLE001, PERF203 (the operation is done)
                    observer.log_failure(listener, raised)

        return tell


def _add(call: Call, run: Callable[..., Any], args: Args, note: Note) -> Any:
    """Run a hook of an operation, and add to its figures."""
    call.is_in_hook = True
    try:
        result = run(*args)
    finally:
        call.is_in_hook = False
    try:  # noqa: SIM105 (faster than suppress)
        note(call, args, result)
    except Exception:  # noqa: BLE001, S110 (what the contract does not know)
        pass
    return result


def _name_of(error: BaseException) -> str:
    """Return the name of an exception's class that is not private to a driver of the library."""
    classes = type(error).__mro__
    return next(cls.__name__ for cls in classes if not cls.__module__.startswith(_DRIVERS))


def _as_list(get_keys: Callable[..., Any]) -> Callable[..., Any]:
    """Return the method with a list as its result, if it is a generator: it is an operation too."""

    @functools.wraps(get_keys)
    def listed(driver: Any, *args: Any, **kwargs: Any) -> Any:
        keys = get_keys(driver, *args, **kwargs)
        return [*keys] if type(keys) is types.GeneratorType else keys

    return listed


def _function(driver: Any, name: str) -> Callable[..., Any]:
    """Return a method as a function that gets the driver first, however the driver defines it."""
    found = inspect.getattr_static(type(driver), name, None)
    attribute = vars(driver).pop(name, None)
    if attribute is None and isinstance(found, types.FunctionType):
        return found  # without one more call

    def run(driver: Any, *args: Any, **kwargs: Any) -> Any:
        method = getattr(super(Observed, driver), name) if attribute is None else attribute
        return method(*args, **kwargs)

    return run if found is None else functools.wraps(getattr(type(driver), name))(run)


def _parameters(method: Callable[..., Any]) -> list[str]:
    try:
        found = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):  # of a function that is not written in Python
        return []
    return [parameter.name for parameter in found if parameter.kind in _POSITIONAL]


def _positional(parameters: list[str], args: Args, kwargs: dict[str, Any]) -> Args:
    """Return the arguments by position, as far as possible; take them out of ``kwargs``."""
    given = itertools.takewhile(kwargs.__contains__, parameters[len(args) :])
    return (*args, *[kwargs.pop(name) for name in given])
