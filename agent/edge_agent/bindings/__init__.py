"""Bindings: local topics become rows, rows become predictions, predictions become sensors.

Everything here but ``bridge`` and ``link`` is pure: no clock, socket or thread.
"""
