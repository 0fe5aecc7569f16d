"""The exact figures of requests and operations, which leave no room for another layer.

``table.txt`` has them. After a change that lowers or raises one, this command measures all of them
and writes the table, which takes half a minute::

    python -m tests.figures

The columns are for one run of a row of :mod:`tests.benchmarks.costs`:

calls
    Calls of the Python functions of this package, without comprehensions, which are calls up to
    Python 3.11 only. The number is the same for all versions of Python and of the libraries.
all calls
    Calls of all Python functions, less those of a bare Pyramid request. They are compared only
    where Python and the libraries have the versions that the table names.
trips
    Round trips to the server.
system calls
    Compared only where ``strace`` is installed.

There is a part for each way to redis: without ``hiredis``, the package sends and receives by
redis-py's layers. The figures are the same with and without ``msgspec``.
"""
