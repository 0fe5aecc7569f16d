"""Cache backends for Kinto: ``kinto.cache_backend = pyramid_kvs.kinto.redis``.

Or ``.memcached``, ``.memory``, ``.postgresql``. They read Kinto's own settings.
"""
