"""The demo of pyramid_kvs, which ``docs/demo/run`` starts."""
