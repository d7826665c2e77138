"""``python nothing.py PORT``: parses each request and answers a constant; the least there is."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import httptools
import uvloop

BODY = (
    b'{"model_name":"bench","model_version":"1","outputs":[{"name":"label","shape":[1],'
    b'"datatype":"INT64","data":[1]},{"name":"probabilities","shape":[1,2],"datatype":"FP32",'
    b'"data":[0.000502854585647583,0.9994971752166748]}]}'
)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(BODY),
    BODY,
)


class Nothing(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is here."""
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        """A part of a request."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """A whole one."""
        self._transport.write(ANSWER)


async def serve(port: int) -> None:
    """Until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Nothing, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
