"""What ``publish``, ``sync``, ``gc``, ``status`` and ``audit`` say: text, or JSON."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.table import Table

from edge_pack.key_printing import print_json

if TYPE_CHECKING:
    from edge_release.audit import Checked
    from edge_release.garbage import Garbage
    from edge_release.overview import Line, Version
    from edge_release.publication import Synced
    from edge_release.repository import Published, Renewed


@dataclass(frozen=True)
class Held:
    """Whether a broker holds all that is published; if not, why, and what is missing."""

    in_sync: bool
    why: str = ""
    missing_messages: int = 0
    missing_bytes: int = 0


def show_published(
    published: Published, synced: Synced | None, seconds: float, role: str, *, floor: str = "",
    as_json: bool,
) -> None:  # fmt: skip
    """What a publication, promotion or new floor did."""
    if as_json:
        print_json(_summary(published, synced, seconds, role, floor))
        return
    place, version = published.place, published.release.version
    what = (
        f"the floor of {place.model} is {floor}" if floor else f"{place.model} {version} is {role}"
    )
    sys.stdout.write(
        f"{what} in channel {place.channel} of"
        f" fleet {place.fleet} (pointer version {published.pointer_version})\n"
    )
    if synced is None:
        sys.stdout.write("signed here; bring it to devices with `edge-pack sync`\n")
    else:
        sys.stdout.write(_put(synced, seconds))


def _summary(
    published: Published, synced: Synced | None, seconds: float, role: str, floor: str
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "model": published.place.model,
        "version": published.release.version,
        "sha256": published.release.sha256,
        "fleet": published.place.fleet,
        "channel": published.place.channel,
        "candidate": role == "candidate",
        "pointer_version": published.pointer_version,
        "timestamp_version": published.timestamp_version,
        "signed": published.changed,
    }
    if floor:
        found["floor"] = floor
    return found | _counts(synced, seconds)


def _counts(synced: Synced | None, seconds: float) -> dict[str, Any]:
    if synced is None:
        return {"messages": None, "bytes": None, "kept_bytes": None, "seconds": round(seconds, 3)}
    return {
        "messages": synced.put_messages,
        "bytes": synced.put_bytes,
        "kept_bytes": synced.kept_bytes,
        "seconds": round(seconds, 3),
    }


def _put(synced: Synced, seconds: float) -> str:
    return (
        f"put {synced.put_messages} messages, {synced.put_bytes:,} bytes in {seconds:.1f} s;"
        f" {synced.kept_bytes:,} bytes were there already\n"
    )


def show_synced(renewed: Renewed, synced: Synced, seconds: float, *, as_json: bool) -> None:
    """What ``sync`` put back and signed anew."""
    if as_json:
        print_json(
            {"renewed": list(renewed.renewed), "due": list(renewed.due)} | _counts(synced, seconds)
        )
        return
    if renewed.renewed:
        sys.stdout.write(f"signed anew: {', '.join(renewed.renewed)}\n")
    if renewed.due:
        sys.stdout.write(f"due, and not signed, no key here: {', '.join(renewed.due)}\n")
    sys.stdout.write(_put(synced, seconds))


def show_garbage(found: Garbage, dropped: list[str], *, dry_run: bool, as_json: bool) -> None:
    """What ``gc`` removed, or would."""
    if as_json:
        print_json(
            {
                "dry_run": dry_run,
                "versions": dropped,
                "topics": len(found.topics),
                "files": len(found.files),
                "bytes": found.size_bytes,
            }
        )
        return
    would = "would be " if dry_run else ""
    for version in dropped:
        sys.stdout.write(f"{would}nameable no more: {version}\n")
    sys.stdout.write(
        f"{would}removed: {len(found.topics)} topics from the broker, {len(found.files)} files of"
        f" {found.size_bytes:,} bytes from the disk\n"
    )


def show_overview(lines: list[Line], held: Held | None, *, as_json: bool) -> None:
    """What is published, and whether the broker has it."""
    if as_json:
        print_json(
            {"models": [asdict(line) for line in lines], "broker": asdict(held) if held else None}
        )
        return
    if not lines:
        sys.stdout.write("nothing is published\n")
    else:
        Console().print(_overview_table(lines))
    if held is not None:
        sys.stdout.write(
            "the broker holds all of it\n"
            if held.in_sync
            else f"the broker does not hold all of it: {held.why}\nrun `edge-pack sync`\n"
        )


def _overview_table(lines: list[Line]) -> Table:
    table = Table(box=None, header_style="")
    for column in ("fleet", "channel", "model", "stable", "candidate", "former", "floor"):
        table.add_column(column)
    for line in lines:
        table.add_row(
            line.fleet,
            line.channel,
            line.model,
            _version(line.stable),
            _version(line.candidate) if line.candidate else "",
            " ".join(version.version for version in line.others),
            line.floor,
        )
    return table


def _version(version: Version) -> str:
    return f"{version.version} ({version.size_bytes / 1e6:.1f} MB)"


def _shortened(value: str) -> str:
    """A digest or key id by its beginning; the whole is in the JSON."""
    return " ".join(word[:12] if len(word) == 64 else word for word in value.split(" "))


def show_audit(checked: Checked, last: int, *, verify: bool, as_json: bool) -> None:
    """The newest entries; and what is wrong with the log, if anything."""
    entries = checked.entries[-last:]
    if as_json:
        print_json(
            {
                "entries": [
                    msgspec.to_builtins(entry) | {"undone": entry.n in checked.undone}
                    for entry in entries
                ],
                "valid": not checked.faults,
                "faults": list(checked.faults),
                "notes": list(checked.notes),
            }
        )
        return
    for entry in entries:
        about = " ".join(
            f"{key}={_shortened(value)}" for key, value in entry.about.items() if value
        )
        note = "  (cut off: it did not happen)" if entry.n in checked.undone else ""
        keys = ", ".join(key.split(" ")[0] for key in entry.keys)
        sys.stdout.write(
            f"{entry.n} {entry.at} {entry.who} {entry.what} {about} signed by {keys}{note}\n"
        )
    for said in checked.notes:
        sys.stdout.write(f"note: {said}\n")
    for fault in checked.faults:
        sys.stdout.write(f"ALTERED: {fault}\n")
    if verify and not checked.faults:
        sys.stdout.write(f"the log holds: {len(checked.entries)} entries, each follows the last\n")
