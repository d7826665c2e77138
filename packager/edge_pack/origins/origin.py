"""One model's origin: the local file, where it came from, and what its papers say of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Origin:
    """A model file on this machine, and whence.

    Attributes:
        path: the one model file, such as ``model.joblib``; inside a temporary folder if fetched
            or unpacked.
        named: the path that the user named, where that is a file or folder of theirs, else None.
        uri: as recorded in provenance, without credentials or query; "" for a path.
        named_by_user: the file, or the archive or folder it lies in, is a path that the user
            named. A pickle from anywhere else needs ``--trust``.
        flavour: ``sklearn``, ``xgboost``, ``onnx``, ... of an MLmodel folder, else "".
        run_id: the MLflow run that logged it, or "". registered: ``NAME/VERSION``, or "".
        columns: the inputs that an MLmodel signature names, in order; () where it names none.
        versions: library -> version that the model was saved with, as its papers say.
    """

    path: Path
    named: Path | None = None
    uri: str = ""
    named_by_user: bool = True
    flavour: str = ""
    run_id: str = ""
    registered: str = ""
    columns: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
