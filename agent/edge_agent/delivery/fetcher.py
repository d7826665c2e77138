"""TUF's network port over retained MQTT messages: ``tuf.ngclient`` asks, the broker answers.

Guards: a length check before any byte is parsed or kept; an absent file is told apart from a
silent broker; a name that metadata brought reaches a topic only when it is harmless there; a
question can be called off; nothing is written to a temporary file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator

from tuf.api.exceptions import DownloadError, DownloadHTTPError, DownloadLengthMismatchError
from tuf.api.metadata import TargetFile
from tuf.ngclient.fetcher import FetcherInterface

from edge_contract.errors import PeerFault
from edge_contract.ports.retained import TOMBSTONE, Retained
from edge_contract.topics import Topics

METADATA = "m/"
TARGETS = "t/"
_FETCH_MAX_BYTES = 1024 * 1024
_NOT_FOUND = 404
_FILE = re.compile(r"[A-Za-z0-9._~%-]{1,160}")
"""A metadata file: role names come percent-encoded from python-tuf; versions may have any size."""
_PATH = re.compile(r"[^\x00-\x1f\x7f+#\ud800-\udfff]{1,512}")
"""A target path without MQTT's wildcards, control characters and what UTF-8 cannot encode."""


class MqttFetcher(FetcherInterface):
    """Fetches ``m/<metadata file>`` and ``t/<target path>`` from a fleet's topics.

    Args:
        connect: the download connection, made when the first file is asked for.
        meanwhile: called several times a second while waiting; what it raises ends the wait.
    """

    def __init__(
        self,
        connect: Callable[[], Retained],
        topics: Topics,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        self._connect = connect
        self._topics = topics
        self._meanwhile = meanwhile

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """The file's bytes.

        Raises DownloadHTTPError when there is none, DownloadLengthMismatchError when it is longer
        than ``max_length``, DownloadError when it has no topic, PeerFault when the broker is
        silent, gone or refuses.
        """
        topic = self._topic(url)
        retained = self._connect()
        data = retained.get([topic], size_max=max_length, meanwhile=self._meanwhile).get(topic)
        if data is None or data == TOMBSTONE:
            raise DownloadHTTPError(f"nothing is retained on {topic}", _NOT_FOUND)
        if len(data) > max_length:
            raise DownloadLengthMismatchError(f"{topic} holds more than {max_length} bytes")
        return data

    def _fetch(self, url: str) -> Iterator[bytes]:
        yield self.download_bytes(url, _FETCH_MAX_BYTES)

    def _topic(self, url: str) -> str:
        if url.startswith(METADATA) and _FILE.fullmatch(name := url.removeprefix(METADATA)):
            return self._topics.metadata(name)
        if url.startswith(TARGETS) and _PATH.fullmatch(path := url.removeprefix(TARGETS)):
            return self._topics.target(path)
        raise DownloadError(f"metadata names a file that no topic can have: {url[:120]!r}")


def download_target(
    fetcher: FetcherInterface, info: TargetFile, *, size_max: int, prefixed: bool = True
) -> bytes:
    """A target's bytes, of the length and digest that its role signed.

    Args:
        prefixed: the file's name begins with its digest, as consistent snapshots have it.

    Raises PeerFault when it may not be that large, python-tuf's DownloadError and
    LengthOrHashMismatchError.
    """
    if info.length > size_max:
        raise PeerFault(f"{info.path} is {info.length} bytes, over the limit of {size_max}")
    path = _prefixed(info.path, next(iter(info.hashes.values()))) if prefixed else info.path
    data = fetcher.download_bytes(f"{TARGETS}{path}", info.length)
    info.verify_length_and_hashes(data)
    return data


def download_digest(fetcher: FetcherInterface, path: str, sha256: str, *, size_max: int) -> bytes:
    """The bytes of a target whose SHA-256 was proven before.

    Raises PeerFault when others are there, python-tuf's DownloadError.
    """
    data = fetcher.download_bytes(f"{TARGETS}{_prefixed(path, sha256)}", size_max)
    got = hashlib.sha256(data).hexdigest()
    if got != sha256:
        raise PeerFault(f"{path} has other bytes: their SHA-256 is {got}, expected {sha256}")
    return data


def _prefixed(path: str, digest: str) -> str:
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{digest}.{name}"
