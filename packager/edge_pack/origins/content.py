"""What a file really is, by its first bytes and never by its name.

Guards: looking at a file runs nothing of it; a pickle is called one whatever it is named.
"""

from __future__ import annotations

from pathlib import Path

from edge_contract.errors import InputFault

_HEAD_BYTES = 512
_COMPRESSED = {
    b"\x1f\x8b": "gzip", b"\x78\x01": "zlib", b"\x78\x5e": "zlib", b"\x78\x9c": "zlib",
    b"\x78\xda": "zlib", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"]\x00\x00": "lzma",
    b"\x04\x22\x4d\x18": "lz4",
}  # fmt: skip
"""What joblib.dump(..., compress=...) wraps a pickle in, by magic number."""


def head_of(path: Path) -> bytes:
    """The file's first 512 bytes. Raises InputFault when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError as error:
        raise InputFault(f"cannot read {path}: {error.strerror or error}") from error


def kind_of(head: bytes) -> str:
    """One of pickle, compressed, zip, hdf5, json, ubjson, lightgbm, catboost, xgboost or "".

    Protocol 2 and later pickles begin with the opcode PROTO and their number (PEP 307, 3154).
    """
    if len(head) >= 2 and head[0] == 0x80 and head[1] <= 5:
        return "pickle"
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "hdf5"
    if head.startswith(b"CBM1"):
        return "catboost"
    if head.startswith((b"tree\n", b"tree\r\n")):
        return "lightgbm"
    if head.startswith(b"binf"):
        return "xgboost"  # its binary form, up to 1.x
    if any(head.startswith(magic) for magic in _COMPRESSED):
        return "compressed"
    if head.startswith(b"{L") or head.startswith(b"{i") or head.startswith(b"{U"):
        return "ubjson"
    return "json" if head.lstrip()[:1] == b"{" else ""


_NAMES = {
    "pickle": "a pickle", "zip": "a zip archive", "hdf5": "an HDF5 file", "json": "JSON text",
    "compressed": "a compressed file", "ubjson": "UBJSON", "lightgbm": "a LightGBM model",
    "catboost": "a CatBoost model", "xgboost": "an XGBoost model of the old binary form",
}  # fmt: skip
_PICKLES = {"pickle", "compressed", ""}  # "": protocols 0 and 1 have no magic number
_EXPECTED = {
    ".onnx": {""}, ".joblib": _PICKLES, ".pkl": _PICKLES, ".pickle": _PICKLES,
    ".skops": {"zip"}, ".keras": {"zip"}, ".pt2": {"zip"}, ".cbm": {"catboost"},
}  # fmt: skip


def check(path: Path) -> None:
    """Raise InputFault when the file is of another kind than its suffix says."""
    allowed = _EXPECTED.get(path.suffix.lower())
    if allowed is None:
        return
    kind = kind_of(head_of(path))
    if kind in _NAMES and kind not in allowed:
        raise InputFault(
            f"{path} is named {path.suffix} but is {_NAMES[kind]}; nothing of it was run",
            advice="Give the file the suffix of what it is, or save the model again.",
        )
