"""What ``edge-pack keys`` says: tables and sentences, or JSON."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from edge_release.keyring import Outcome, RoleStatus, Standing
    from edge_release.pending import Lack
    from edge_release.repository import Renewed, Repository

_OPEN = (
    "The keys are NOT encrypted; only this user can read them. Keep a copy of the folder off line:"
)
_ENCRYPTED = "The keys are encrypted: keep the passphrase, and a copy of the folder off line:"


def show_made(
    folder: Path, fingerprint: str, profile: str, roots: list[str], *, encrypted: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """What ``keys init`` made."""
    if as_json:
        first = folder / "repository" / "metadata" / "1.root.json"
        print_json(
            {
                "fingerprint": digits(fingerprint),
                "root": str(first),
                "profile": profile,
                "encrypted": encrypted,
            }
        )
        return
    sys.stdout.write(
        f"keys and an empty repository are in {folder} (profile {profile})\n"
        f"root fingerprint: {fingerprint}\n"
        f"enroll each device with: edge-agent enroll --root {fingerprint}\n"
        f"{_ENCRYPTED if encrypted else _OPEN}\n"
        f"who can use it can sign for your devices, and without {', '.join(roots)} nobody can"
        " ever replace a key.\n"
    )


def show_standing(
    standing: Standing, fingerprint: str, profile: str, unused: tuple[str, ...], now: datetime,
    *, as_json: bool,
) -> None:  # fmt: skip
    """What ``keys status`` found."""
    if as_json:
        print_json(
            {
                "fingerprint": digits(fingerprint),
                "profile": profile,
                "roles": [_role_json(row, now) for row in standing.roles],
                "waiting": list(standing.lines),
                "missing_signatures": [_lack_json(lack) for lack in standing.lacks],
                "unused_keys": list(unused),
            }
        )
        return
    sys.stdout.write(f"root fingerprint: {fingerprint} (profile {profile})\n")
    Console().print(_role_table(standing.roles, now))
    for row in standing.roles:
        if not row.anywhere:
            sys.stdout.write(
                f"{row.role}: only devices with edge-pack[fast] can check"
                f" {', '.join(key.scheme for key in row.keys if not key.anywhere)}\n"
            )
    if unused:
        sys.stdout.write(f"sign for nothing any more, delete them: {', '.join(unused)}\n")
    if standing.lines:
        sys.stdout.write("a change of keys waits for signatures:\n")
        _write_change(standing.lines, standing.lacks, {})


def show_outcome(outcome: Outcome, repository: Repository, *, as_json: bool) -> None:
    """What came of a change of keys."""
    if as_json:
        print_json(outcome_json(outcome))
        return
    names = {keyid: repository.ring.name(keyid) for lack in outcome.lacks for keyid in lack.by}
    if outcome.signed:
        sys.stdout.write(f"signed by {', '.join(outcome.signed)}\n")
    _write_change(outcome.lines, outcome.lacks, names)
    if not outcome.done:
        sys.stdout.write(
            f"nothing is changed yet: carry {repository.shelf.pending} to who has such a key, and"
            " run\n`edge-pack keys sign` there; then `edge-pack keys sign --take FILE` here\n"
        )
        return
    if outcome.unused:
        sys.stdout.write(f"sign for nothing any more, delete them: {', '.join(outcome.unused)}\n")
    sys.stdout.write("done; bring it to devices with `edge-pack sync`\n")


def show_renewed(
    renewed: Renewed, outcome: Outcome | None, late: tuple[str, ...], *, as_json: bool
) -> None:
    """What ``keys renew`` signed, and what it could not."""
    signed = list(renewed.renewed)
    if as_json:
        made = outcome_json(outcome) if outcome else None
        print_json({"renewed": signed, "due": list(late), "offline": made})
        return
    if outcome is not None:
        _write_change(outcome.lines, outcome.lacks, {})
    sys.stdout.write(f"signed anew: {', '.join(signed)}\n" if signed else "nothing else is due\n")
    if late:
        sys.stdout.write(
            f"due, and not signed: {', '.join(late)}; sign where the keys are (root and targets:"
            " `edge-pack keys renew --offline`)\n"
        )


def show_discarded(*, there: bool, as_json: bool) -> None:
    """That the waiting change is dropped."""
    if as_json:
        print_json({"discarded": there})
        return
    sys.stdout.write("dropped; nothing was changed\n" if there else "nothing waited\n")


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """An outcome for scripts."""
    return {
        "done": outcome.done,
        "changes": list(outcome.lines),
        "signed_by": list(outcome.signed),
        "missing_signatures": [_lack_json(lack) for lack in outcome.lacks],
        "unused_keys": list(outcome.unused),
    }


def print_json(value: object) -> None:
    """One line of JSON on stdout."""
    sys.stdout.write(json.dumps(value) + "\n")


def digits(fingerprint: str) -> str:
    """A fingerprint without its ``sha256:``."""
    return fingerprint.removeprefix("sha256:")


def _write_change(lines: tuple[str, ...], lacks: tuple[Lack, ...], names: dict[str, str]) -> None:
    for line in lines:
        sys.stdout.write(f"  {line}\n")
    for lack in lacks:
        who = " or ".join(names.get(keyid, keyid[:8]) for keyid in lack.by)
        sys.stdout.write(
            f"  still needs {lack.missing} of {lack.needed} signatures of the {lack.as_role} keys:"
            f" {who}\n"
        )


def _lack_json(lack: Lack) -> dict[str, Any]:
    return {
        "role": lack.role,
        "as": lack.as_role,
        "missing": lack.missing,
        "needed": lack.needed,
        "by": list(lack.by),
    }


def _role_json(row: RoleStatus, now: datetime) -> dict[str, Any]:
    return {
        "role": row.role,
        "version": row.version,
        "expires": row.expires.isoformat(),
        "days_left": (row.expires - now).days,
        "threshold": row.threshold,
        "keys": [key.name for key in row.keys],
        "keyids": [key.keyid for key in row.keys],
        "key_here": row.present,
        "expired": row.expires <= now,
        "renew": row.renew,
        "needs_fast": not row.anywhere,
    }


def _role_table(rows: tuple[RoleStatus, ...], now: datetime) -> Table:
    table = Table(box=None, header_style="")
    for column in ("role", "version", "expires", "days left", "must sign", "keys", "here", "note"):
        table.add_column(column)
    for row in rows:
        if row.expires <= now:
            note = "EXPIRED"
        elif row.renew:
            note = "sign anew: past half its life"
        else:
            note = ""
        table.add_row(
            row.role,
            str(row.version),
            row.expires.strftime("%Y-%m-%d"),
            str((row.expires - now).days),
            f"{row.threshold} of {len(row.keys)}",
            " ".join(key.name for key in row.keys),
            "yes" if row.present else "no",
            note,
        )
    return table
