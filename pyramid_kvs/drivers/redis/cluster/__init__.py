"""The redis driver for a cluster: the same commands, each sent to the node that has its key.

``nodes.py`` has the connections to one node, ``topology.py`` the map from slots to nodes,
``rounds.py`` sends commands and follows what nodes answer while slots move, and ``scanning.py``
lists the keys of all nodes.
"""

from __future__ import annotations

from .driver import RedisClusterKVS

__all__ = ["RedisClusterKVS"]
