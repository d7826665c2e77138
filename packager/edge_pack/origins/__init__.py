"""Where a model comes from: a path that the user names, a URI, an archive or a registry."""

from edge_pack.origins.origin import Origin
from edge_pack.origins.resolving import resolve
from edge_pack.origins.uris import recorded

__all__ = ["Origin", "recorded", "resolve"]
