"""Fetches a model from an MLflow tracking server or registry, with mlflow's own client.

Guards: nothing of the model is loaded or run by mlflow, its files are only copied; the client
reports no usage to anyone; no credential of the tracking URI stands in a message.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_contract.errors import EdgeError, InputFault, PeerFault
from edge_pack.extras import need
from edge_pack.origins.uris import recorded, without_secrets

_FORMS = "mlflow:models:/NAME/VERSION, mlflow:models:/NAME@ALIAS or mlflow:runs:/RUN/PATH"


@dataclass(frozen=True)
class Fetched:
    """A model's folder, the run that logged it, and ``NAME/VERSION`` where it is registered."""

    folder: Path
    run_id: str
    registered: str


def fetch(uri: str, folder: Path) -> Fetched:
    """The model behind ``mlflow:...``, copied into ``folder``.

    The tracking server or database is the one that ``MLFLOW_TRACKING_URI`` names.

    Raises:
        InputFault: no such form, or no such model, version, alias or run.
        MachineFault: mlflow-skinny is not installed.
        PeerFault: the server or the artifact store fails.
    """
    inner = uri.removeprefix("mlflow:")
    if not inner.startswith(("models:/", "runs:/")):
        raise InputFault(f"{recorded(uri)} is no model of a registry", advice=f"Expected {_FORMS}.")
    mlflow = _client_library()
    errors = need("mlflow.exceptions", "reading a model registry")
    try:
        version = _version_of(mlflow, inner)
        local = Path(mlflow.artifacts.download_artifacts(inner, dst_path=str(folder)))
    except EdgeError:
        raise
    except errors.MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"):
            raise InputFault(
                f"{recorded(uri)} is not there: {_said(error)}",
                advice="The registry asked is the one that MLFLOW_TRACKING_URI names.",
            ) from error
        raise _failed(uri, error) from error
    except Exception as error:  # the store behind the registry has errors of its own
        raise _failed(uri, error) from error
    if version is None:
        run = inner.removeprefix("runs:/").partition("/")[0] if inner.startswith("runs:/") else ""
        return Fetched(local, run, "")
    return Fetched(local, str(version.run_id or ""), f"{version.name}/{version.version}")


def _client_library() -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    mlflow = need("mlflow", "reading a model registry")
    need("mlflow.artifacts", "reading a model registry")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return mlflow


def _version_of(mlflow: Any, inner: str) -> Any:
    """The registered version that ``models:/...`` names; None for a run or a logged model."""
    path = inner.removeprefix("models:/").strip("/")
    if inner.startswith("runs:/") or not {"/", "@"} & set(path):
        return None
    client = mlflow.MlflowClient()
    name, at, alias = path.partition("@")
    if at:
        return client.get_model_version_by_alias(name, alias)
    name, _, version = path.partition("/")
    if version.isdigit():
        return client.get_model_version(name, version)
    if version.lower() == "latest":
        found = client.search_model_versions(f"name='{name}'")
        return max(found, key=lambda entry: int(entry.version), default=None)
    raise InputFault(
        f"mlflow:{inner} names no version: {version!r} is no number", advice=f"Expected {_FORMS}."
    )


def _said(error: Exception) -> str:
    said = without_secrets(str(error), "mlflow:").strip().splitlines()
    return said[0][:300] if said else type(error).__name__


def _failed(uri: str, error: Exception) -> PeerFault:
    return PeerFault(
        f"cannot fetch {recorded(uri)}: {type(error).__name__}: {_said(error)}",
        advice="Check MLFLOW_TRACKING_URI and the credentials of the artifact store.",
    )
