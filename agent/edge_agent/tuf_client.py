"""The agent's updater as the command that the public TUF client conformance suite expects.

    python -m edge_agent.tuf_client --metadata-dir DIR init TRUSTED_ROOT
    python -m edge_agent.tuf_client --metadata-dir DIR --metadata-url URL refresh
    python -m edge_agent.tuf_client --metadata-dir DIR --metadata-url URL --target-name NAME \\
        --target-base-url URL --target-dir DIR download

Exit code 0 when it succeeded wholly, 1 otherwise. The suite, and what it expects of the command:
https://github.com/theupdateframework/tuf-conformance, CLIENT-CLI.md.

Guards: what verifies here is ``DurableUpdater``, the code that devices run, judged strictly at
this machine's clock; only where the bytes come from differs, HTTP here and MQTT there. No file is
longer than was asked for, none takes longer than ``FILE_MAX_S``, and redirects are not followed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import urllib3
from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    LengthOrHashMismatchError,
    RepositoryError,
    SlowRetrievalError,
)
from tuf.ngclient.fetcher import FetcherInterface

from edge_agent.delivery.fetcher import METADATA, TARGETS, download_target
from edge_agent.delivery.roots import ROOT_MAX_BYTES, DurableUpdater, check_root
from edge_contract.errors import EdgeError, InputFault, PeerFault
from edge_contract.ports.disk import read_bounded, write_atomic

FILE_MAX_S = 30.0
"""A server that sends a byte now and then holds a client no longer than this."""
SILENCE_MAX_S = 10.0
TARGET_MAX_BYTES = 256 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024
_OK = 200


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    command: str
    metadata_dir: Path
    metadata_url: str = ""
    target_name: str = ""
    target_base_url: str = ""
    target_dir: Path | None = None
    trusted_root: Path | None = None

    @property
    def anchor(self) -> Path:
        """Where ``init`` leaves the root: in a folder of its own, the suite lists this one."""
        return self.metadata_dir / "pinned" / "root.json"


class HttpFetcher(FetcherInterface):
    """Fetches ``m/...`` and ``t/...`` below two URLs, within a size and a time."""

    def __init__(
        self,
        metadata_url: str,
        target_url: str,
        *,
        file_max_s: float = FILE_MAX_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bases = {METADATA: metadata_url, TARGETS: target_url}
        self._file_max_s = file_max_s
        self._clock = clock
        self._pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=SILENCE_MAX_S, read=SILENCE_MAX_S), retries=False
        )

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """The file's bytes.

        Raises DownloadHTTPError for any status but 200, DownloadLengthMismatchError when it is
        longer than ``max_length``, SlowRetrievalError when it takes too long, DownloadError.
        """
        kind, path = url[: len(METADATA)], url[len(METADATA) :]
        base = self._bases[kind]
        address = f"{base.rstrip('/')}/{path}"
        deadline = self._clock() + self._file_max_s
        try:
            return self._read(address, max_length, deadline)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise DownloadError(f"cannot fetch {address}: {error}") from error

    def _read(self, address: str, max_length: int, deadline: float) -> bytes:
        response = self._pool.request(
            "GET",
            address,
            preload_content=False,
            redirect=False,
            headers={"Accept-Encoding": "identity"},
        )
        try:
            if response.status != _OK:
                raise DownloadHTTPError(f"{address}: status {response.status}", response.status)
            data = bytearray()
            while piece := response.read1(_CHUNK_BYTES, decode_content=False):
                data += piece
                if len(data) > max_length:
                    raise DownloadLengthMismatchError(f"{address} is over {max_length} bytes")
                if self._clock() > deadline:
                    raise SlowRetrievalError(f"{address} takes over {self._file_max_s:g} s")
            return bytes(data)
        finally:
            response.close()  # the rest of an endless answer is not waited for

    def _fetch(self, url: str) -> Iterator[bytes]:
        yield self.download_bytes(url, TARGET_MAX_BYTES)


# -- the three commands ---------------------------------------------------------------------


def init(request: Request, fetcher: FetcherInterface, now: datetime) -> None:
    """Trust a root, for good. Raises InputFault when it is none or another one is trusted."""
    assert request.trusted_root is not None
    root = read_bounded(request.trusted_root, ROOT_MAX_BYTES)
    check_root(root)
    if request.anchor.is_file() and request.anchor.read_bytes() != root:
        raise InputFault(
            f"{request.metadata_dir} trusts another root already",
            advice="Name an empty folder to begin with another root.",
        )
    write_atomic(request.anchor, root)
    _updater(request, fetcher, now)


def refresh(request: Request, fetcher: FetcherInterface, now: datetime) -> None:
    """Bring the top-level metadata up to date."""
    _updater(request, fetcher, now).refresh()


def download(request: Request, fetcher: FetcherInterface, now: datetime) -> None:
    """Bring metadata up to date and have the target in the target folder.

    Raises PeerFault when no role that may name it does.
    """
    assert request.target_dir is not None
    updater = _updater(request, fetcher, now)
    updater.refresh()
    info = updater.get_targetinfo(request.target_name)
    if info is None:
        raise PeerFault(f"no role names a target {request.target_name!r}")
    file = request.target_dir / quote(info.path, "")
    if file.is_file():
        try:
            info.verify_length_and_hashes(read_bounded(file, info.length))
        except (InputFault, LengthOrHashMismatchError):
            pass  # an older one of that name
        else:
            return
    data = download_target(
        fetcher, info, size_max=TARGET_MAX_BYTES, prefixed=updater.consistent_snapshot
    )
    write_atomic(file, data)


def _updater(request: Request, fetcher: FetcherInterface, now: datetime) -> DurableUpdater:
    if not request.anchor.is_file():
        raise InputFault(
            f"{request.metadata_dir} trusts no root yet", advice="Run the command init first."
        )
    root = read_bounded(request.anchor, ROOT_MAX_BYTES)
    return DurableUpdater(request.metadata_dir, root, fetcher, now)


_COMMANDS = {"init": init, "refresh": refresh, "download": download}


# -- the command line -----------------------------------------------------------------------


def _parse(arguments: Sequence[str]) -> Request:
    parser = argparse.ArgumentParser(
        prog="python -m edge_agent.tuf_client",
        description="The agent's updater of signed metadata, for the TUF conformance suite.",
    )
    parser.add_argument("--metadata-dir", type=Path, required=True, help="trusted metadata")
    parser.add_argument("--metadata-url", default="", help="where the repository's metadata is")
    parser.add_argument("--target-name", default="", help="target path to download")
    parser.add_argument("--target-base-url", default="", help="where the targets are")
    parser.add_argument("--target-dir", type=Path, help="where a downloaded target goes")
    commands = parser.add_subparsers(dest="command", required=True)
    begin = commands.add_parser("init", help="trust a root")
    begin.add_argument("trusted_root", type=Path)
    commands.add_parser("refresh", help="bring the top-level metadata up to date")
    commands.add_parser("download", help="download a target")
    found = parser.parse_args(arguments)
    if found.command != "init" and not found.metadata_url:
        parser.error(f"{found.command} needs --metadata-url")
    if found.command == "download" and not (
        found.target_name and found.target_base_url and found.target_dir
    ):
        parser.error("download needs --target-name, --target-base-url and --target-dir")
    return Request(**vars(found))


def _over_http(request: Request) -> FetcherInterface:
    return HttpFetcher(request.metadata_url, request.target_base_url)


def main(
    arguments: Sequence[str] | None = None,
    *,
    fetcher_of: Callable[[Request], FetcherInterface] = _over_http,
    now: datetime | None = None,
) -> int:
    """Run one command; returns its exit code. What was wrong is one line on stderr.

    Args:
        fetcher_of: another way to the repository's bytes. now: another time, aware.
    """
    request = _parse(sys.argv[1:] if arguments is None else arguments)
    try:
        _COMMANDS[request.command](request, fetcher_of(request), now or datetime.now(UTC))
    except (EdgeError, RepositoryError, DownloadError) as error:
        text = f"{type(error).__name__}: {error}"
        sys.stderr.write(f"{text.encode('ascii', 'backslashreplace').decode()[:500]}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
