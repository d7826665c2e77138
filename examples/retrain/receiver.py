"""A receiver of webhooks that knows who speaks, when, and whether it heard it before.

Standard library only. Anything that knows Standard Webhooks does the same, such as the packages
`standardwebhooks` for Python, JavaScript, Go or Rust.

    echo "whsec_$(head -c 32 /dev/urandom | base64 -w0)" > hook.secret
    python receiver.py hook.secret 8099
    edge-fleet triggers test tell --triggers triggers.toml
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

TOLERANCE_S = 300
BODY_MAX_BYTES = 1024 * 1024


def refusal(headers: dict[str, str], body: bytes, secret: str, now_s: float) -> str:
    """Why a request is not to be believed; "" when it is. Header names in lower case."""
    key, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not (stamp.isascii() and stamp.isdigit()) or abs(now_s - int(stamp)) > TOLERANCE_S:
        return "its time is minutes off: a message of yesterday, or a wrong clock"
    signed = f"{key}.{stamp}.".encode() + body
    wanted = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256)
    said = "v1," + base64.b64encode(wanted.digest()).decode()
    given = headers.get("webhook-signature", "").encode().split()
    if not any(hmac.compare_digest(each, said.encode()) for each in given):
        return "its signature is not ours"
    return ""


class Handler(BaseHTTPRequestHandler):
    """Says 204 to what it did or had done before, 401 to what it does not believe."""

    secret = ""
    seen: set[str] = set()  # a real one keeps these on disk  # noqa: RUF012

    def do_POST(self) -> None:
        """One delivery."""
        size = int(self.headers.get("Content-Length", "0"))
        body = self.rfile.read(min(size, BODY_MAX_BYTES))
        headers = {name.lower(): value for name, value in self.headers.items()}
        why = refusal(headers, body, self.secret, time.time())
        if not why and headers["webhook-id"] not in self.seen:
            self.seen.add(headers["webhook-id"])
            evidence = json.loads(body)
            print(f"retrain {evidence['model']} {evidence['version']}: {evidence['why']}",
                  flush=True)  # fmt: skip
        self.send_response(401 if why else 204)
        self.end_headers()
        self.wfile.write(why.encode())

    def log_message(self, *_: object) -> None:
        """Quiet."""


def main(secret_file: str, port: int) -> None:
    """Listen on the loopback until interrupted."""
    Handler.secret = Path(secret_file).read_text().strip()
    server = HTTPServer(("127.0.0.1", port), Handler)
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
