"""What a MODEL argument is: a path or a URI, and what of a URI may be written down. Pure.

Guards: no user name, password, token or signed query of a URI reaches a manifest, a message or
a log.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from edge_contract.errors import InputFault

MLFLOW = "mlflow"
DRIVERS = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs",
    "abfss": "adlfs", "http": "aiohttp", "https": "aiohttp", "file": "", "memory": "",
}  # fmt: skip
"""Scheme -> the package that fsspec needs for it ("": none)."""
_AZURE = frozenset({"az", "abfs", "abfss"})
FORMS = (
    "a path; s3://, gs://, az://, https:// or file://; mlflow:models:/NAME/VERSION, "
    "mlflow:models:/NAME@ALIAS or mlflow:runs:/RUN/PATH"
)


def scheme_of(model: str) -> str:
    """The URI's scheme, or "" for a path.

    Raises InputFault for a scheme that nothing here reads, and for a chain of them.
    """
    if model.startswith("mlflow:"):
        return MLFLOW
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)(::|://)", model)
    if not found:
        return ""
    scheme = found[1].lower()
    if "::" in model or scheme not in DRIVERS:
        raise InputFault(
            f"{recorded(model)} is no place this reads a model from", advice=f"Expected {FORMS}."
        )
    return scheme


def as_model(model: str | Path) -> str | Path:
    """A path as such; a URI as its text. Raises InputFault as ``scheme_of`` does."""
    if isinstance(model, Path) or scheme_of(model):
        return model
    return Path(model)


def member_of(model: str) -> tuple[str, str]:
    """``s3://b/model.tar.gz#net.onnx`` as the place and the file inside it ("": not named)."""
    place, _, member = model.partition("#")
    return place, member


def recorded(model: str) -> str:
    """The URI as it may be written down: no credentials, no query.

    In Azure's form the part before ``@`` is a container's name and stays.
    """
    if model.startswith("mlflow:"):
        return model.partition("?")[0]
    try:
        parts = urlsplit(model)
    except ValueError:
        return model.partition("?")[0].partition("@")[0]
    user, at, host = parts.netloc.rpartition("@")
    kept = user.partition(":")[0] + at if parts.scheme.lower() in _AZURE else ""
    return urlunsplit((parts.scheme, kept + host, parts.path, "", parts.fragment))


def without_secrets(text: str, uri: str) -> str:
    """A library's message about ``uri``, with no credentials or signed query left in it."""
    text = text.replace(uri, recorded(uri))
    text = re.sub(r"(?<=://)[^/\s'\"@]+:[^/\s'\"@]*@", "", text)
    return re.sub(r"\?[^\s'\")]*", "", text)
