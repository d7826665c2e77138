"""HTTP servers in processes of their own: their environments, their cost, and load on them.

What a request costs is the processor time of a server and its children, out of ``/proc``. The
load comes from wrk and h2load, whose own time does not count.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnxruntime

SERVERS = Path(__file__).parent / "servers"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "edge-pack" / "peers"
FEATURES = 20
INFER = "/v2/models/bench/infer"
START_S = 180.0
RATE_PER_S = 200
"""What the slowest peer can do on a core of its own, and a device might be asked."""
PACED_TIMES = 3
TOOLS = {"wrk": "wrk", "h2load": "nghttp2-client"}
"""And the packages that have them."""
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def body(tensor: str) -> bytes:
    """One row for every server, as the Open Inference Protocol has it."""
    data = [round(math.sin(1.7 * i), 6) for i in range(FEATURES)]
    row = {"name": tensor, "shape": [1, FEATURES], "datatype": "FP32", "data": data}
    return json.dumps({"inputs": [row]}).encode()


@dataclass(frozen=True)
class Peer:
    """A server to measure.

    Attributes:
        packages: what its own environment holds; none: it runs in this one.
        path: where it takes the request.
    """

    name: str
    packages: tuple[str, ...] = ()
    path: str = INFER


OURS, NOTHING, BARE = Peer("edge-pack"), Peer("nothing"), Peer("bare")
_RUNTIME = f"onnxruntime=={onnxruntime.__version__}"
PEERS = (
    Peer("MLServer", ("mlserver==1.7.1", _RUNTIME)),
    Peer("KServe", ("kserve==0.21.0", _RUNTIME)),
    Peer("LitServe", ("litserve==0.2.19", _RUNTIME), "/predict"),
)


def environment(peer: Peer) -> Path:
    """The Python of a peer's own environment, made where it is not there yet.

    Raises subprocess.CalledProcessError with the installer's words when it cannot be.
    """
    if not peer.packages:
        return Path(sys.executable)
    key = hashlib.sha256(" ".join((*peer.packages, sys.version)).encode()).hexdigest()[:12]
    folder = CACHE / f"{peer.name.lower()}-{key}"
    if not (folder / "done").exists():
        print(f"installing {', '.join(peer.packages)} into {folder} ...", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
        install = [*uv, "pip", "install", "--quiet", "--python", folder / "bin" / "python"]
        subprocess.run([*install, *peer.packages], check=True)
        (folder / "done").touch()
    return folder / "bin" / "python"


class Server:
    """One running server.

    Args:
        bundle, onnx: the same model for us and for them. request: what it is asked.
        folder: for its settings and what it prints.

    Attributes:
        start_s: from its start to its first answer.
    """

    def __init__(self, peer: Peer, bundle: Path, onnx: Path, request: bytes, folder: Path) -> None:
        self.peer = peer
        self._request = request
        self._port = _free_port()
        self.url = f"http://127.0.0.1:{self._port}{peer.path}"
        command = _command(peer, (bundle, onnx), self._port, folder)
        self._log = folder / f"{peer.name}.log"
        begin = time.monotonic()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=folder, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self._wait(begin)
        except BaseException:
            self.stop()
            raise
        self.start_s = time.monotonic() - begin

    def _wait(self, begin: float) -> None:
        while not _answers(self.url, self._request):
            if self._process.poll() is not None or time.monotonic() - begin > START_S:
                raise RuntimeError(f"{self.peer.name} does not answer:\n{self._log.read_text()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def cpu_s(self) -> float:
        """Processor time of all its processes."""
        ticks = 0
        for pid in self._pids():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks * _TICK_S

    def pss_bytes(self) -> int:
        """Memory of all its processes, what they share counted once."""
        total = 0
        for pid in self._pids():
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
                total += sum(int(kb) for kb in re.findall(r"^Pss:\s+(\d+) kB", text, re.M)) * 1024
        return total

    def _pids(self) -> Iterator[int]:
        """Its session: nothing of what it starts leaves it."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if os.getsid(int(entry.name)) == self._process.pid:
                        yield int(entry.name)


@dataclass(frozen=True)
class Load:
    """What is asked, in the files that the two tools read. Raises RuntimeError for faults."""

    body: Path
    script: Path

    @classmethod
    def of(cls, request: bytes, folder: Path) -> Load:
        """The files, made."""
        body, script = folder / "infer.json", folder / "infer.lua"
        body.write_bytes(request)
        script.write_text(
            'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
            f"wrk.body = '{request.decode()}'\n"
        )
        return cls(body, script)

    def saturate(self, server: Server, connections: int, seconds: int) -> float:
        """Microseconds of processor time a request, as many as it can do."""
        words = f"wrk -t1 -c{connections} -d{seconds}s --timeout 30s -s".split()
        return _spent_us(server, [*words, self.script, server.url], r"(\d+) requests in")

    def pace(self, server: Server, connections: int, seconds: int) -> float:
        """The same at ``RATE_PER_S``; for longer.

        There is less to count so, and the kernel gives processor time in hundredths of a second.
        A server that cannot keep the rate never sleeps, and is the cheaper for it: it is let off.
        """
        seconds *= PACED_TIMES
        words = f"h2load --h1 -t1 -c{connections} -D{seconds} --rps={RATE_PER_S / connections}"
        return _spent_us(
            server,
            [*words.split(), "-H", "content-type: application/json", "-d", self.body, server.url],
            r"status codes: (\d+) 2xx, 0 3xx, 0 4xx, 0 5xx",
        )


def _spent_us(server: Server, words: list[str | Path], answered: str) -> float:
    before = server.cpu_s()
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    spent = server.cpu_s() - before
    found = re.search(answered, done.stdout)
    if found is None or "Non-2xx" in done.stdout or not int(found[1]):
        raise RuntimeError(f"{server.peer.name}: {done.stdout}")
    return spent / int(found[1]) * 1e6


def _command(peer: Peer, model: tuple[Path, Path], port: int, folder: Path) -> list[str | Path]:
    python, (bundle, onnx) = environment(peer), model
    match peer.name:
        case "edge-pack":
            return [python, SERVERS / "ours.py", bundle, str(port)]
        case "nothing":
            return [python, SERVERS / "nothing.py", str(port)]
        case "MLServer":
            return [python.parent / "mlserver", "start", _mlserver_folder(folder, onnx, port)]
    return [python, SERVERS / f"{peer.name.lower()}_onnx.py", onnx, str(port)]


def _mlserver_folder(folder: Path, onnx: Path, port: int) -> Path:
    """Its settings: no further processes, no debugging, as its documentation advises."""
    made = folder / "mlserver"
    made.mkdir(exist_ok=True)
    shutil.copy(SERVERS / "mlserver_onnx.py", made)
    settings = {
        "debug": False, "parallel_workers": 0, "host": "127.0.0.1", "http_port": port,
        "grpc_port": _free_port(), "metrics_port": _free_port(), "use_structured_logging": False,
    }  # fmt: skip
    model = {
        "name": "bench",
        "implementation": "mlserver_onnx.OnnxModel",
        "parameters": {"uri": str(onnx)},
    }
    (made / "settings.json").write_text(json.dumps(settings))
    (made / "model-settings.json").write_text(json.dumps(model))
    return made


def _answers(url: str, body: bytes) -> bool:
    # The address is one of ours, on the loopback.
    request = urllib.request.Request(url, body, {"content-type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port
