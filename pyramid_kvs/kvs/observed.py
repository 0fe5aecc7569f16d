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
from .figures import KINDS, Args, Call, Kind, current
from .names import canonical_name

log = logging.getLogger("pyramid_kvs.observe")

_POSITIONAL = inspect.Parameter.POSITIONAL_OR_KEYWORD


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
    #: The name of the exception's class, or ``None``.
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
    found = call.args[0] if call is not None and call.args else ()
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
        self._log = ThrottledLog(log)

    def log_failure(self, listener: Listener, error: Exception) -> None:
        name = getattr(listener, "__qualname__", type(listener).__qualname__)
        self._log.error("the listener %s raised %s", name, type(error).__name__)


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
    object.__setattr__(driver, "_observer", observer)  # the driver may refuse attributes
    _set_class(driver, observed_class(driver))
    for pool in driver.connection_pools():
        pool.count_round_trips()


#: Sets the class of an object whose own class has an attribute ``__class__``, too.
_set_class = vars(object)["__class__"].__set__


def observed_class(driver: Any) -> type[Any]:
    """Return a class for an observed driver, made of the class that it has.

    Methods that are attributes of the driver itself become methods of the class.
    """
    cls = type(driver)
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    methods = {
        name: Method(name, kind, driver).observed()
        for name, kind in KINDS.items()
        if hasattr(cls, name) or name in vars(driver)
    }
    return types.new_class(
        cls.__name__, (Observed, cls), exec_body=lambda body: body.update(names, **methods)
    )


# -- methods ---------------------------------------------------------------------------------


class Method:
    """A method of a driver, and how it is observed."""

    def __init__(self, name: str, kind: Kind, driver: Any) -> None:
        self._parameters = _parameters(getattr(driver, name))
        run = _function(driver, name)
        self._operation = "run_script" if name == "run_packed" else name.removeprefix("raw_")
        self._kind = kind
        self._run = _as_list(run) if name == "get_keys" else run

    def observed(self) -> Callable[..., Any]:
        """Return the method to call instead: it is an operation, or belongs to one."""
        run, prepare, is_hook = self._run, self._kind.prepare, self._kind.note is not None
        add, end = self._adding(), self._ending()

        @functools.wraps(run)
        def observed(driver: Any, *args: Any, **kwargs: Any) -> Any:
            outer = current.get()
            if outer is not None and (outer.driver is driver or outer.is_told):
                if is_hook and not outer.is_in_hook:
                    return add(outer, driver, args, kwargs)
                return run(driver, *args, **kwargs)
            if kwargs:
                args = _positional(self._parameters, args, kwargs)
            if prepare is not None:
                args = prepare(args)
            call = Call(driver, args, is_hook)
            began = perf_counter()
            try:
                current.set(call)
                result = run(driver, *args, **kwargs)
            except BaseException as error:
                end(call, outer, perf_counter() - began, type(error).__name__, None)
                raise
            end(call, outer, perf_counter() - began, None, result)
            return result

        return observed

    def _ending(self) -> Callable[[Call, Call | None, float, str | None, Any], None]:
        """Return the function that ends an operation and tells the listeners about it.

        It gets the operation, the one of another driver that it ran in, its time, and what it
        raised or returned.
        """
        operation, (keys, note, _) = self._operation, self._kind
        new, fixed = tuple.__new__, keys if isinstance(keys, int) else None  # faster than calls

        def end(
            call: Call, outer: Call | None, took: float, error: str | None, result: Any
        ) -> None:
            observer: Observer = call.driver._observer
            count = fixed
            try:
                try:
                    if count is None:
                        count = keys(call.args, result)  # type: ignore[operator]
                    if error is None and note is not None:
                        note(call, call.args, result)
                except Exception:  # noqa: BLE001, S110 (what the contract does not know)
                    pass
                told = new(Operation, (
                    operation, observer.setting, observer.driver, observer.server, count or 0,
                    call.hits, call.bytes_sent, call.bytes_received, took, error,
                    call.round_trips, call.misses,
                ))  # fmt: skip
                call.is_told = call.is_in_hook = True
                for listener in observer.listeners:
                    try:
                        listener(told)
                    except Exception as raised:  # noqa: BLE001, PERF203 (the operation is done)
                        observer.log_failure(listener, raised)
            finally:
                # A greenlet that a listener started has the same context.
                call.driver, call.is_told = None, False
                current.set(outer)

        return end

    def _adding(self) -> Callable[[Call, Any, Args, dict[str, Any]], Any]:
        """Return the function that runs a hook of an operation, and adds to its figures."""
        run, parameters, note = self._run, self._parameters, self._kind.note

        def add(call: Call, driver: Any, args: Args, kwargs: dict[str, Any]) -> Any:
            call.is_in_hook = True
            try:
                result = run(driver, *args, **kwargs)
            finally:
                call.is_in_hook = False
            try:
                given = _positional(parameters, args, dict(kwargs)) if kwargs else args
                note(call, given, result)  # type: ignore[misc]
            except Exception:  # noqa: BLE001, S110 (what the contract does not know)
                pass
            return result

        return add


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
    return [parameter.name for parameter in found if parameter.kind is _POSITIONAL]


def _positional(parameters: list[str], args: Args, kwargs: dict[str, Any]) -> Args:
    """Return the arguments by position, as far as possible; take them out of ``kwargs``."""
    given = itertools.takewhile(kwargs.__contains__, parameters[len(args) :])
    return (*args, *[kwargs.pop(name) for name in given])
