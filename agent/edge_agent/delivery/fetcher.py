"""TUF's network port over retained MQTT messages: ``tuf.ngclient`` asks, the broker answers.

Guards: a length check before any byte is parsed or kept; an absent file is told apart from a
silent broker; nothing is written to a temporary file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tuf.api.exceptions import DownloadHTTPError, DownloadLengthMismatchError
from tuf.ngclient.fetcher import FetcherInterface

from edge_contract.ports.retained import TOMBSTONE, Retained
from edge_contract.topics import Topics

METADATA = "m/"
TARGETS = "t/"
_FETCH_MAX_BYTES = 1024 * 1024
_NOT_FOUND = 404


class MqttFetcher(FetcherInterface):
    """Fetches ``m/<metadata file>`` and ``t/<target path>`` from a fleet's topics.

    Args:
        connect: the download connection, made when the first file is asked for.
    """

    def __init__(self, connect: Callable[[], Retained], topics: Topics) -> None:
        self._connect = connect
        self._topics = topics

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """The file's bytes.

        Raises DownloadHTTPError when there is none, DownloadLengthMismatchError when it is longer
        than ``max_length``, PeerFault when the broker is silent, gone or refuses.
        """
        topic = self._topic(url)
        data = self._connect().get([topic], size_max=max_length).get(topic)
        if data is None or data == TOMBSTONE:
            raise DownloadHTTPError(f"nothing is retained on {topic}", _NOT_FOUND)
        if len(data) > max_length:
            raise DownloadLengthMismatchError(f"{topic} holds more than {max_length} bytes")
        return data

    def _fetch(self, url: str) -> Iterator[bytes]:
        yield self.download_bytes(url, _FETCH_MAX_BYTES)

    def _topic(self, url: str) -> str:
        if url.startswith(METADATA):
            return self._topics.metadata(url.removeprefix(METADATA))
        return self._topics.target(url.removeprefix(TARGETS))


class StandingFetcher(FetcherInterface):
    """The repository state that was verified last: its timestamp is the local one.

    Roots beyond the trusted one do not exist for it; all else is fetched when it is not on disk.
    """

    def __init__(self, inner: FetcherInterface, timestamp: bytes) -> None:
        self._inner = inner
        self._timestamp = timestamp

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """As the inner fetcher, but for root and timestamp."""
        if url == f"{METADATA}timestamp.json":
            return self._timestamp
        if url.startswith(METADATA) and url.endswith(".root.json"):
            raise DownloadHTTPError("no newer root than the trusted one", _NOT_FOUND)
        return self._inner.download_bytes(url, max_length)

    def _fetch(self, url: str) -> Iterator[bytes]:
        yield self.download_bytes(url, _FETCH_MAX_BYTES)
