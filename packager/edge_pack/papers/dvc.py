"""What DVC knows of a file: its entry in ``NAME.dvc`` beside it, or in ``dvc.lock`` above it.

Guards: an entry is recorded only where its MD5 is that of the file at hand: a record that fell
behind its file would put a false origin into a signed manifest. Records that nobody can read
never fail a build. YAML is read without its power to make objects.

Format: dvc.org/doc/user-guide/project-structure. ``hash: md5`` (DVC 3) is the MD5 of the bytes;
entries without it are of DVC 2, which took text files' MD5 with Unix line ends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edge_contract.manifest import Tracked
from edge_pack.extras import need

RECORD_MAX_BYTES = 1024**2
"""Reading 1 MiB of YAML takes 0.3 s; a lock file of a thousand stages is half of that."""
PARENTS_MAX = 32

Role = Literal["model", "data"]


@dataclass(frozen=True)
class _Entry:
    md5: str
    bytes_hashed: bool
    record: Path
    text: bytes
    stage: str = ""


def tracked(role: Role, path: Path, notice: Callable[[str], None]) -> Tracked | None:
    """What DVC says of the file ``path``, or None.

    Args:
        notice: told where DVC's record names another content than the file has.
    """
    entry = next(iter((*_beside(path), *_locked(path))), None)
    if entry is None:
        return None
    if _md5(path) != entry.md5:
        if entry.bytes_hashed:
            notice(
                f"{entry.record.name} names another content of {path.name} than it has: "
                "the DVC entry is left out (run dvc status)"
            )
        return None
    return Tracked(
        role=role,
        md5=entry.md5,
        record=entry.record.name,
        record_sha256=hashlib.sha256(entry.text).hexdigest(),
        stage=entry.stage,
    )


def _beside(path: Path) -> Iterator[_Entry]:
    record = path.with_name(f"{path.name}.dvc")
    if not record.is_file():
        return
    text, document = _read(record)
    for out in _listed(document, "outs"):
        if out.get("path") == path.name and _is_md5(out.get("md5")):
            yield _Entry(out["md5"], out.get("hash") == "md5", record, text)


def _locked(path: Path) -> Iterator[_Entry]:
    """Entries of the nearest ``dvc.lock`` at or above the file, outputs before dependencies."""
    whole = path.absolute()
    for folder in list(whole.parents)[:PARENTS_MAX]:
        record = folder / "dvc.lock"
        if not record.is_file():
            continue
        text, document = _read(record)
        wanted = whole.relative_to(folder).as_posix()
        for kind in ("outs", "deps"):
            for stage, content in sorted(_mapping(document, "stages").items(), key=str):
                for out in _listed(content, kind):
                    if out.get("path") == wanted and _is_md5(out.get("md5")):
                        fits = out.get("hash") == "md5"
                        yield _Entry(out["md5"], fits, record, text, str(stage))
        return


def _read(record: Path) -> tuple[bytes, Any]:
    """A record's bytes and what they hold; None for one that is absent, too large or damaged."""
    yaml = need("yaml", "reading DVC's records")
    try:
        with record.open("rb") as file:
            text = file.read(RECORD_MAX_BYTES + 1)
        if len(text) > RECORD_MAX_BYTES:
            return b"", None
        return text, yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return b"", None


def _mapping(document: Any, key: str) -> dict[Any, Any]:
    found = document.get(key) if isinstance(document, dict) else None
    return found if isinstance(found, dict) else {}


def _listed(document: Any, key: str) -> list[dict[Any, Any]]:
    found = document.get(key) if isinstance(document, dict) else None
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _is_md5(value: object) -> bool:
    return isinstance(value, str) and len(value) == 32 and set(value) <= set("0123456789abcdef")


def _md5(path: Path) -> str:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
            return digest.hexdigest()
    except OSError:
        return ""
