"""What this device believes: signed metadata in, a verified pointer and manifest out.

Guards: no byte is parsed before a length check; nothing is believed that does not lead to the
root pinned at enrolment; metadata never goes back; every file is durable before the next one is
asked for, so a power cut at any point leaves metadata that was verified.

The steps, each with its number where it stands in the code. Any failure is a PeerFault and leaves
pointer, floor and everything installed as they were:
 1. roots: each signed by the one before, from the pinned one on;
 2. timestamp: signed, not older than the last one seen;
 3. snapshot: the one that timestamp names, and no role in it older than before;
 4. targets and rollout: as snapshot names them, signed by the keys delegated to;
 5. pointer: the bytes that rollout names, about this fleet and channel;
 6. each release in it: a manifest that the models role signed with the same SHA-256, so that a
    stolen rollout key can only choose among genuine models;
 7. manifest: the bytes of the digest that 6 proved, about this model and version, not below the
    floor. It needs no metadata any more: a state that is half published or lost on the broker
    does not hold up a version that was verified before.
Chunks and members follow in ``pull`` (8, 9) and ``slot`` (10).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec import Struct
from tuf.api.exceptions import (
    DownloadError,
    ExpiredMetadataError,
    RepositoryError,
)
from tuf.api.metadata import TargetFile
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from edge_agent.delivery import fetcher as fetchers
from edge_agent.delivery import freshness
from edge_agent.delivery.freshness import BUILT_AT, Profile, Word
from edge_agent.delivery.roots import ROOT_MAX_BYTES, DurableUpdater, check_root, fingerprint
from edge_contract import manifest as manifests
from edge_contract import messages, wire
from edge_contract.errors import InputFault, PeerFault
from edge_contract.manifest import MANIFEST_MAX_BYTES, Manifest
from edge_contract.messages import MAX_BYTES, Pointer, Release
from edge_contract.names import version_key
from edge_contract.ports.disk import read_bounded, write_atomic

log = logging.getLogger(__name__)

_STATE_MAX_BYTES = 256 * 1024
_ERROR_MAX_CHARS = 300
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ADVICE = (
    "Nothing was changed. If the publisher renewed its keys or repository, enroll this device"
    " again; otherwise somebody is tampering with the broker."
)


class _Trusted(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What the last refresh left: the time floor, and the pointer with all its releases proven.

    ``floor_keys``: digest of the timestamp keys that vouched for the floor.
    """

    schema: int = 1
    floor_s: int
    floor_keys: str = ""
    pointer_sha256: str
    pointer: Pointer
    word: Word = "verified"


@dataclass(frozen=True)
class _Clock:
    """This machine's clock, whether it may be believed, and what expiry means here."""

    now: datetime
    synchronised: bool
    profile: Profile


@dataclass(frozen=True)
class _Seen:
    """What one look verified, by whom, how fresh it is, and the floor that it was judged at."""

    pointer: Pointer
    sha256: str
    updater: DurableUpdater
    word: Word
    floor: datetime


@dataclass(frozen=True)
class Refreshed:
    """The channel's verified pointer, and how fresh its metadata is known to be.

    ``expired`` in profile ``managed``: the pointer is the last one that was verified in time.
    ``changed``: it differs from the one that was known before.
    """

    pointer: Pointer
    freshness: Word
    changed: bool = False


class Trust:
    """The trusted metadata of one fleet and channel, on disk in ``folder``."""

    def __init__(self, folder: Path, *, fleet: str, channel: str, profile: Profile) -> None:
        self._folder = folder
        self._fleet = fleet
        self._channel = channel
        self._profile = profile

    # -- the anchor ------------------------------------------------------------------------

    @property
    def enrolled(self) -> bool:
        """Whether a root is pinned."""
        return self._pinned.is_file()

    def pin(self, root: bytes) -> str:
        """Trust ``root`` from now on; returns its fingerprint. The same root again is no change.

        Raises InputFault when it is not a root signed by itself, or another one is pinned.
        """
        check_root(root)
        if self.enrolled:
            pinned = fingerprint(self._anchor())
            if pinned != fingerprint(root):
                raise InputFault(
                    f"this device trusts another root: {pinned}",
                    advice=f"To trust a new one, stop the agent and remove {self._folder}.",
                )
        else:
            write_atomic(self._pinned, root)
        return fingerprint(root)

    def roots(self) -> list[bytes]:
        """The roots that this device trusts: the one pinned at enrolment, and the newest."""
        newest = self._metadata / "root.json"
        paths = [path for path in (self._pinned, newest) if path.is_file()]
        return [read_bounded(path, ROOT_MAX_BYTES) for path in paths]

    @property
    def _pinned(self) -> Path:
        return self._folder / "pinned.root.json"

    def _anchor(self) -> bytes:
        if not self.enrolled:
            raise InputFault(
                "this device is not enrolled: it trusts no root yet",
                advice="Run `edge-agent enroll --root sha256:...` with what `edge-pack keys init`"
                " printed.",
            )
        return read_bounded(self._pinned, ROOT_MAX_BYTES)

    # -- refresh ---------------------------------------------------------------------------

    def cached(self) -> Pointer | None:
        """The pointer that was verified last, or None."""
        trusted = self._state()
        return trusted.pointer if trusted else None

    def refresh(self, fetcher: FetcherInterface, *, now: datetime, synchronised: bool) -> Refreshed:
        """Bring metadata up to date and return the verified pointer.

        Raises PeerFault when anything does not verify, InputFault when not enrolled.
        """
        self._anchor()
        before = self._state()
        clock = _Clock(now, synchronised, self._profile)
        with _peer_faults():
            try:
                seen = self._judge(fetcher, clock, before, _floor(before))
            except ExpiredMetadataError as error:
                return self._expired(before, error)
        floor = freshness.raised(
            seen.floor,
            seen.updater.signed_at,
            now=now,
            synchronised=synchronised,
            limit=seen.updater.first_end,
        )
        after = _Trusted(
            floor_s=int((floor - _EPOCH).total_seconds()),
            floor_keys=seen.updater.timestamp_keys,
            pointer_sha256=seen.sha256,
            pointer=seen.pointer,
            word=seen.word,
        )
        self._write(before, after)
        changed = before is None or before.pointer != seen.pointer
        return Refreshed(seen.pointer, seen.word, changed)

    def _judge(
        self, fetcher: FetcherInterface, clock: _Clock, before: _Trusted | None, floor: datetime
    ) -> _Seen:
        """What is published, judged by the rules of ``freshness``.

        Raises ExpiredMetadataError when it has expired and may not be used all the same.
        """
        rule = freshness.freshness(
            clock.now, synchronised=clock.synchronised, floor=floor, profile=clock.profile
        )
        at, word = rule.at, rule.word
        while True:
            # Made offline; only its refresh asks.
            updater = DurableUpdater(self._metadata, self._anchor(), fetcher, at)
            try:
                pointer, sha256 = self._verify(updater, fetcher, before)
                kept = BUILT_AT if _rotated(before, updater) else floor
                return _Seen(pointer, sha256, updater, word=word, floor=kept)
            except ExpiredMetadataError as error:
                if floor > BUILT_AT and _rotated(before, updater):
                    # Who said that it was so late is not believed any more.
                    return self._judge(fetcher, clock, before, BUILT_AT)
                if rule.lenient_at is None or word == "expired":
                    raise
                log.warning("metadata expired (%s); used all the same at home", _plain(error))
                at, word = rule.lenient_at, "expired"

    def _expired(self, before: _Trusted | None, error: ExpiredMetadataError) -> Refreshed:
        if before is None:
            raise PeerFault(
                f"the published metadata has expired: {_plain(error)}",
                advice="Have the publisher sign anew: `edge-pack publish` does.",
            ) from error
        log.warning("metadata expired (%s); nothing new is installed", _plain(error))
        return Refreshed(before.pointer, "expired")

    def _write(self, before: _Trusted | None, after: _Trusted) -> None:
        """Keep the state; what did not change is not worth a write to flash."""
        if before != after:
            write_atomic(self._folder / "trusted.json", wire.encode_json(after))

    def _verify(
        self, updater: DurableUpdater, fetcher: FetcherInterface, before: _Trusted | None
    ) -> tuple[Pointer, str]:
        # 1. roots, 2. timestamp, 3. snapshot, 4. targets
        updater.refresh()
        # 4. rollout, 5. pointer
        path = messages.pointer_path(self._fleet, self._channel)
        info = updater.get_targetinfo(path)
        if info is None:
            raise PeerFault(
                f"nothing is published for channel {self._channel} of fleet {self._fleet}",
                advice="Publish with `edge-pack publish`, or mend the channel in agent.toml.",
            )
        if "sha256" not in info.hashes:
            raise PeerFault(f"{path} is signed without a SHA-256", advice=_ADVICE)
        if before is not None and info.hashes["sha256"] == before.pointer_sha256:
            pointer, sha256 = before.pointer, before.pointer_sha256
        else:
            data = fetchers.download_target(fetcher, info, size_max=MAX_BYTES[Pointer])
            pointer, sha256 = self._pointer(data), hashlib.sha256(data).hexdigest()
        # 6. each release is a genuine one
        for name, track in pointer.models.items():
            for release in track.releases():
                _genuine(updater, name, release)
        return pointer, sha256

    def _pointer(self, data: bytes) -> Pointer:
        pointer = messages.decode(data, Pointer)
        if (pointer.fleet, pointer.channel) != (self._fleet, self._channel):
            raise PeerFault(
                f"the pointer is about fleet {pointer.fleet}, channel {pointer.channel}, expected"
                f" {self._fleet}, {self._channel}",
                advice=_ADVICE,
            )
        return pointer

    # -- manifest --------------------------------------------------------------------------

    def manifest(
        self, fetcher: FetcherInterface, release: Release, *, name: str, kept: bytes | None = None
    ) -> tuple[Manifest, bytes]:
        """The verified manifest of a release that the last verified pointer names.

        Args:
            kept: its bytes when they are on disk from an earlier attempt; checked all the same.

        Raises PeerFault when it does not verify, InputFault when the pointer does not name it.
        """
        trusted = self._state()
        track = trusted.pointer.models.get(name) if trusted else None
        if trusted is None or track is None or release not in track.releases():
            raise InputFault(f"{name} {release.version} is not named by the verified pointer")
        if track.floor and version_key(release.version) < version_key(track.floor):
            raise PeerFault(f"{name} {release.version} is below the signed floor {track.floor}")
        # 7. the manifest's bytes: those that the models role named when the pointer was verified
        if kept is None or hashlib.sha256(kept).hexdigest() != release.sha256:
            with _peer_faults():
                kept = fetchers.download_digest(
                    fetcher, release.path, release.sha256, size_max=MANIFEST_MAX_BYTES
                )
        with _peer_faults():
            data, manifest = kept, manifests.decode(kept)
        if (manifest.name, manifest.version) != (name, release.version):
            raise PeerFault(
                f"the manifest is about {manifest.name} {manifest.version}, expected {name}"
                f" {release.version}",
                advice=_ADVICE,
            )
        return manifest, data

    # -- disk ------------------------------------------------------------------------------

    @property
    def _metadata(self) -> Path:
        return self._folder / "metadata"

    def _state(self) -> _Trusted | None:
        path = self._folder / "trusted.json"
        if not path.is_file():
            return None
        try:
            data = read_bounded(path, _STATE_MAX_BYTES)
            trusted = wire.decode_json(data, _Trusted, size_max=_STATE_MAX_BYTES)
        except InputFault as error:
            log.warning("forgetting a damaged trusted.json: %s", error)
            return None
        same = (trusted.pointer.fleet, trusted.pointer.channel) == (self._fleet, self._channel)
        return trusted if same else None


def _floor(trusted: _Trusted | None) -> datetime:
    return _EPOCH + timedelta(seconds=trusted.floor_s) if trusted else BUILT_AT


def _rotated(before: _Trusted | None, updater: DurableUpdater) -> bool:
    """Whether the floor was vouched for by other timestamp keys than the root names now."""
    return before is not None and before.floor_keys not in {"", updater.timestamp_keys}


def _genuine(updater: Updater, name: str, release: Release) -> TargetFile:
    """The signed manifest that ``release`` names; PeerFault when the models role has no such."""
    path = messages.manifest_path(name, release.version)
    info = updater.get_targetinfo(path) if release.path == path else None
    if info is None or info.hashes.get("sha256") != release.sha256:
        raise PeerFault(
            f"the pointer names {name} {release.version} with SHA-256 {release.sha256}, which the"
            " models key did not sign",
            advice=_ADVICE,
        )
    return info


@contextmanager
def _peer_faults() -> Iterator[None]:
    """python-tuf's errors, and what a decoder says of the other side's bytes, as PeerFault."""
    try:
        yield
    except (DownloadError, RepositoryError) as error:
        raise PeerFault(
            f"the published metadata was refused: {_plain(error)}", advice=_ADVICE
        ) from error
    except InputFault as error:
        raise PeerFault(error.what, advice=error.advice) from error


def _plain(error: Exception) -> str:
    """What may stand in a log and a message: an error can carry a role's name, whatever it is."""
    return str(error)[:_ERROR_MAX_CHARS].encode("ascii", "backslashreplace").decode()
