"""A TUF repository that can be made to lie, ways to reach it, and two clients that must agree.

``Repo`` is a repository in memory. ``Client`` runs the agent's command against it, over HTTP or
over MQTT, and beside it python-tuf's own client as oracle: exit code and trusted metadata of both
are compared at every step, unless a test says that ours is stricter.
"""

from __future__ import annotations

import copy
import datetime
import http.server
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

from over_mqtt import BridgedFetcher
from securesystemslib.signer import CryptoSigner, Signer
from tuf.api.exceptions import DownloadError, DownloadHTTPError, RepositoryError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.ngclient import Updater, UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface

from edge_agent import tuf_client
from edge_agent.delivery.roots import ROTATIONS_MAX
from edge_agent.tuf_client import HttpFetcher, Request
from edge_contract.broker_url import BrokerUrl
from edge_contract.errors import EdgeError

NOW = datetime.datetime(2026, 5, 4, 12, 0, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
TOP = ("root", "timestamp", "snapshot", "targets")

_NUMBERS = itertools.count()


def signer() -> CryptoSigner:
    """A fresh Ed25519 key pair."""
    return CryptoSigner.generate_ed25519()


def doubled(key: CryptoSigner, keyid: str) -> CryptoSigner:
    """The same key under another id."""
    public = copy.deepcopy(key.public_key)
    public.keyid = keyid
    return CryptoSigner(key._private_key, public)


class Repo:
    """A repository whose every part a test may change between two publications.

    Attributes:
        signed: role -> what will be signed next.
        signers: role -> whose signatures go on it.
        files: what is served: ``m/<metadata file>`` and ``t/<target file>``.
        asked: the files that a client asked for, in order.
        hashes: whether snapshot and timestamp carry length and hash of what they name.
    """

    def __init__(self, *, consistent: bool = True, hashes: bool = False) -> None:
        self.hashes = hashes
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.targets_seen: list[str] = []
        self.signers: dict[str, list[Signer]] = {}
        end = NOW + 30 * DAY
        self.root = Root(expires=end, consistent_snapshot=consistent)
        self.timestamp = Timestamp(expires=end)
        self.snapshot = Snapshot(expires=end)
        self.targets = Targets(expires=end)
        self.signed: dict[str, Signed] = {
            "root": self.root,
            "timestamp": self.timestamp,
            "snapshot": self.snapshot,
            "targets": self.targets,
        }
        self._published: dict[str, tuple[int, bytes]] = {}
        for role in TOP:
            self.add_key(role)
        self.publish(*TOP)

    # -- keys ------------------------------------------------------------------------------

    def add_key(self, role: str, key: CryptoSigner | None = None, by: str = "root") -> CryptoSigner:
        """One more key for a role, which signs from now on."""
        key = key or signer()
        self.delegator(by).add_key(key.public_key, role)
        self.signers.setdefault(role, []).append(key)
        return key

    def rotate(self, role: str) -> None:
        """New keys for a top-level role, as many as must sign."""
        for keyid in list(self.root.roles[role].keyids):
            self.root.revoke_key(keyid, role)
        self.signers[role] = []
        for _ in range(self.root.roles[role].threshold):
            self.add_key(role)

    def delegator(self, name: str) -> Root | Targets:
        """Root or a targets role, as it will be signed next."""
        found = self.signed[name]
        assert isinstance(found, Root | Targets)
        return found

    # -- what is signed --------------------------------------------------------------------

    def delegate(
        self,
        role: str,
        *,
        by: str = "targets",
        paths: list[str] | None = None,
        terminating: bool = False,
        expires: datetime.datetime | None = None,
    ) -> Targets:
        """Let ``role`` name targets; its metadata is empty until a test fills it."""
        delegator = self.delegator(by)
        assert isinstance(delegator, Targets)
        if delegator.delegations is None:
            delegator.delegations = Delegations({}, roles={})
        assert delegator.delegations.roles is not None
        entry = DelegatedRole(role, [], 1, terminating, paths=["*"] if paths is None else paths)
        delegator.delegations.roles[role] = entry
        if role not in self.signed:
            self.signed[role] = Targets(expires=expires or NOW + 30 * DAY)
        for known in self.signers.get(role, []):
            assert isinstance(known, CryptoSigner)
            delegator.add_key(known.public_key, role)
        if role not in self.signers:
            self.add_key(role, by=by)
        found = self.signed[role]
        assert isinstance(found, Targets)
        return found

    def add_target(self, path: str, data: bytes, role: str = "targets") -> TargetFile:
        """Name a target in a role and serve its bytes."""
        info = TargetFile.from_data(path, data, ["sha256"])
        delegator = self.signed[role]
        assert isinstance(delegator, Targets)
        delegator.targets[path] = info
        self.files[f"t/{self.target_file(info)}"] = data
        return info

    def target_file(self, info: TargetFile) -> str:
        """Where a target is served."""
        folder, slash, name = info.path.rpartition("/")
        if not self.root.consistent_snapshot:
            return info.path
        return f"{folder}{slash}{info.hashes['sha256']}.{name}"

    def seal(self, role: str) -> bytes:
        """The role's metadata, signed by its signers, as it stands."""
        wrapped = Metadata(self.signed[role])
        for each in self.signers[role]:
            wrapped.sign(each, append=True)
        return bytes(wrapped.to_bytes())

    def publish(self, *roles: str, bump: bool = True, names: bool = True) -> None:
        """Sign and serve, in this order: targets roles, snapshot, timestamp, root.

        Args:
            bump: raise versions of what was published before.
            names: have snapshot and timestamp name what is served now.
        """
        for role in sorted(roles, key=_order):
            signed = self.signed[role]
            if bump and role in self._published:
                signed.version += 1
            if names and role == "snapshot":
                self.snapshot.meta = {
                    f"{name}.json": self._named(name) for name in self._published
                    if name not in ("root", "timestamp", "snapshot")
                }  # fmt: skip
            if names and role == "timestamp":
                self.timestamp.snapshot_meta = self._named("snapshot")
            self.serve(role, self.seal(role))

    def serve(self, role: str, data: bytes, version: int | None = None) -> None:
        """Serve any bytes as a role's metadata."""
        version = self.signed[role].version if version is None else version
        self._published[role] = (version, data)
        name = quote(role, "")
        if role == "root":
            self.files[f"m/{version}.root.json"] = data
        elif role == "timestamp" or not self.root.consistent_snapshot:
            self.files[f"m/{name}.json"] = data
        else:
            self.files[f"m/{version}.{name}.json"] = data

    def served(self, role: str) -> bytes:
        """What is served as a role's newest metadata."""
        return self._published[role][1]

    def _named(self, role: str) -> MetaFile:
        version, data = self._published[role]
        if self.hashes:
            return MetaFile.from_data(version, data, ["sha256"])
        return MetaFile(version)

    @property
    def first_root(self) -> bytes:
        """What a device is enrolled with."""
        return self.files["m/1.root.json"]


def _order(role: str) -> int:
    return {"snapshot": 1, "timestamp": 2, "root": 3}.get(role, 0)


# -- ways to reach it -------------------------------------------------------------------------


class Site(http.server.ThreadingHTTPServer):
    """An HTTP server for many repositories: ``/<number>/m/...`` and ``/<number>/t/...``.

    ``answer`` may take a request over: it gets the handler and the bytes, and returns whether it
    answered by itself.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, Repo] = {}
        self.answer: Callable[[_Handler, bytes | None], bool] = lambda handler, data: False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up on an endless answer is no error of the server's."""

    def __enter__(self) -> Site:
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        number, _, file = unquote_once(self.path).lstrip("/").partition("/")
        repo = self.server.repos[number]
        repo.asked.append(file)
        data = repo.files.get(file)
        if self.server.answer(self, data):
            return
        if data is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def unquote_once(path: str) -> str:
    """The file that is meant. Role names are quoted in files as they are in requests."""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{name}" if folder.endswith("/m") else unquote(path)


# -- clients ----------------------------------------------------------------------------------


@dataclass
class Client:
    """The agent's command and, beside it, python-tuf's own client.

    ``run`` makes the way to the repository's bytes for one command.
    """

    folder: Path
    repo: Repo
    url: str
    broker: BrokerUrl | None = None
    number: int = field(default_factory=lambda: next(_NUMBERS))

    @property
    def metadata(self) -> Path:
        return self.folder / "metadata"

    def init(self, root: bytes | None = None) -> int:
        """Enrol ours and the oracle; ours' exit code."""
        self.folder.mkdir(exist_ok=True)
        file = self.folder / "trusted.json"
        file.write_bytes(self.repo.first_root if root is None else root)
        return self._ours("init", str(file))

    def refresh(self, now: datetime.datetime = NOW, *, stricter: bool = False) -> int:
        """Refresh ours and the oracle; they must agree, unless ours is ``stricter``."""
        code = self._ours("refresh", now=now)
        self._compare(code, self._oracle(None, now), stricter=stricter)
        return code

    def download(self, name: str, now: datetime.datetime = NOW, *, stricter: bool = False) -> int:
        """Download with ours and the oracle; they must agree, unless ours is ``stricter``."""
        code = self._ours(
            "--target-name", name, "--target-base-url", f"{self.url}/t",
            "--target-dir", str(self.folder / "targets"), "download", now=now,
        )  # fmt: skip
        self._compare(code, self._oracle(name, now), stricter=stricter)
        return code

    def downloaded(self) -> dict[str, bytes]:
        """What ours has in its target folder, by target path."""
        return {
            unquote(path.name): path.read_bytes() for path in (self.folder / "targets").glob("*")
        }

    def trusted(self, folder: str = "metadata") -> dict[str, bytes]:
        """Trusted metadata on disk by role; for the agent's own unless a folder is named."""
        return {
            unquote(path.name.removesuffix(".json")): path.read_bytes()
            for path in (self.folder / folder).glob("*.json")
        }

    def versions(self) -> dict[str, int]:
        """The version of each trusted role."""
        return {
            role: Metadata[Signed].from_bytes(data).signed.version
            for role, data in self.trusted().items()
        }

    def fetcher(self, request: Request) -> FetcherInterface:
        """HTTP, or MQTT behind the bridge."""
        over_http = HttpFetcher(f"{self.url}/m", f"{self.url}/t", file_max_s=5)
        if self.broker is None:
            return over_http
        return BridgedFetcher(over_http, self.broker, fleet=f"f{self.number}")

    def _ours(self, *arguments: str, now: datetime.datetime = NOW) -> int:
        command = ["--metadata-dir", str(self.metadata), "--metadata-url", f"{self.url}/m"]
        made: list[FetcherInterface] = []

        def fetcher_of(request: Request) -> FetcherInterface:
            made.append(self.fetcher(request))
            return made[0]

        try:
            return tuf_client.main([*command, *arguments], fetcher_of=fetcher_of, now=now)
        finally:
            for each in made:
                if isinstance(each, BridgedFetcher):
                    each.close()

    def _oracle(self, target: str | None, now: datetime.datetime) -> int:
        folder = self.folder / "oracle"
        folder.mkdir(exist_ok=True)
        anchor = self.metadata / "pinned" / "root.json"
        try:
            updater = Updater(
                str(folder), "m/", str(self.folder), "t/", _Direct(self.repo.files),
                UpdaterConfig(max_root_rotations=ROTATIONS_MAX), bootstrap=anchor.read_bytes(),
            )  # fmt: skip
            updater._trusted_set.reference_time = now
            updater.refresh()
            if target is not None:
                info = updater.get_targetinfo(target)
                if info is None:
                    return 1
                updater.download_target(info, str(self.folder / "oracle-target"))
        except (RepositoryError, DownloadError, OSError, ValueError, EdgeError):
            return 1
        return 0

    def _compare(self, code: int, oracle: int, *, stricter: bool) -> None:
        if stricter:
            assert (code, oracle) == (1, 0), "ours was said to be stricter here"
            return
        assert code == oracle, f"ours ended with {code}, python-tuf's own client with {oracle}"
        assert self.trusted() == self.trusted("oracle")


class _Direct(FetcherInterface):
    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def _fetch(self, url: str) -> Iterator[bytes]:
        if url not in self._files:
            raise DownloadHTTPError(url, 404)
        yield self._files[url]
