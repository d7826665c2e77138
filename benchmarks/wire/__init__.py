"""Parts of ``benchmarks/transfer.py``."""
