"""The workstation's half: a trained model in, a small, checked, signed bundle out.

Importing this needs the base install only; conversion libraries are imported when a build runs.
"""

from edge_pack.build import Built, build
from edge_pack.config import BuildConfig

__all__ = ["BuildConfig", "Built", "build"]
