"""Rollouts: a version to some devices, then to more, for as long as nothing speaks against it.

``plan`` decides and is pure; ``runner`` reads the store, keeps what was decided, then sends.
"""
