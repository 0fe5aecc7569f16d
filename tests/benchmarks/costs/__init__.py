"""What requests and operations cost, beside other libraries: ``python -m tests.benchmarks.costs``.

::

    pip install dogpile.cache limits pyramid_session_redis cachelib
    python -m tests.benchmarks.costs                         all rows
    python -m tests.benchmarks.costs read limit --rounds 60

It starts its own redis, on the same core. Libraries that are not installed are left out, and so are
the system calls where ``strace`` is missing. The columns of the table, all of them for one request
or operation:

calls
    Python function calls, counted by ``sys.setprofile``. The number is exact.
system calls
    Counted by ``strace`` in most of several runs. The number is exact.
trips
    How often the client waited for a reply after it had sent something. The number is exact.
replayed µs
    CPU time of the client while its sockets return the recorded replies of one call, without a
    server. For requests it is the difference to a bare Pyramid request, and it is repeatable to
    about 3 % on a busy machine.
real µs
    CPU time of the client with the real server, medians of interleaved rounds.
ratio
    The median of the ratios of real CPU time to our row in each round.
"""
