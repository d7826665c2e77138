"""X.509 certificates by the ``openssl`` command: an authority, a server, clients.

Guards: private keys are written by nobody but their owner, mode 0600, and never pass through an
argument; the name in a certificate is the one that the caller says, whatever the request holds.

The command and not a library: a device has no ``cryptography`` (it is not on PyPI for 32-bit ARM)
and nearly always ``openssl``.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from edge_contract.errors import InputFault, MachineFault
from edge_contract.names import check_name
from edge_contract.ports.disk import write_atomic

CA_DAYS = 3650
SERVER_DAYS = 3650
CLIENT_DAYS = 3650
_TIMEOUT_S = 60.0
_EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def find_openssl() -> str:
    """The command. Raises MachineFault where there is none."""
    found = shutil.which("openssl")
    if found is None:
        raise MachineFault(
            "certificates need the command `openssl`, which is not here",
            advice="Install it (Debian: apt-get install openssl), or use user and password.",
        )
    return found


def make_authority(certificate: Path, key: Path, name: str) -> None:
    """A new authority that signs certificates for brokers and clients."""
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch)
        _run(
            "req", "-x509", "-new", *_EC, "-sha256", "-days", str(CA_DAYS),
            "-subj", f"/CN={check_name(name, 'authority')}",
            "-addext", "basicConstraints=critical,CA:TRUE,pathlen:0",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
            "-keyout", str(made / "key"), "-out", str(made / "pem"),
        )  # fmt: skip
        write_atomic(key, (made / "key").read_bytes(), mode=0o600)
        write_atomic(certificate, (made / "pem").read_bytes())


def renew_authority(certificate: Path, key: Path) -> None:
    """A new certificate of the same authority, for another ``CA_DAYS``: same name, same key.

    What it signed stays good, and who trusts the former certificate trusts what it signs from now
    on, until the former one ends (RFC 5280 6.1: a path is built by name and key).
    """
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "pem"
        _run(
            "x509", "-in", str(certificate), "-signkey", str(key), "-sha256",
            "-days", str(CA_DAYS), "-set_serial", f"0x{os.urandom(16).hex()}", "-out", str(made),
        )  # fmt: skip
        write_atomic(certificate, made.read_bytes())


def ends(certificate: Path) -> datetime:
    """When a certificate's life ends. Raises MachineFault when it cannot be read."""
    said = _run("x509", "-in", str(certificate), "-noout", "-enddate", "-dateopt", "iso_8601")
    return datetime.fromisoformat(said.strip().partition("=")[2].replace("Z", "+00:00"))


def hosts(certificate: Path) -> tuple[str, ...]:
    """The names and addresses that a server's certificate is for. Raises MachineFault."""
    said = _run("x509", "-in", str(certificate), "-noout", "-ext", "subjectAltName")
    return tuple(re.findall(r"(?:DNS|IP Address):([^,\s]+)", said))


def make_request(key: Path) -> str:
    """A certificate request in PEM; its new private key goes to ``key`` unless one is there."""
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch)
        if not key.exists():
            _run("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256",
                 "-out", str(made / "key"))  # fmt: skip
            write_atomic(key, (made / "key").read_bytes(), mode=0o600)
        _run("req", "-new", "-key", str(key), "-subj", "/CN=device", "-out", str(made / "csr"))
        return (made / "csr").read_text()


def issue(ca: Path, ca_key: Path, csr: str, name: str, *, hosts: Sequence[str] = ()) -> str:
    """A certificate in PEM for the key in ``csr``: of a server where ``hosts`` are named.

    The subject is ``name`` and nothing else; what the request says of itself is not looked at.
    Raises InputFault when the request is none.
    """
    server = bool(hosts)
    lines = [
        "basicConstraints=critical,CA:FALSE",
        "keyUsage=critical,digitalSignature",
        f"extendedKeyUsage={'serverAuth' if server else 'clientAuth'}",
    ]
    if server:
        lines.append("subjectAltName=" + ",".join(_alternative(host) for host in hosts))
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch)
        (made / "csr").write_text(csr)
        (made / "extensions").write_text("\n".join(lines) + "\n")
        try:
            _run(
                "x509", "-req", "-in", str(made / "csr"), "-CA", str(ca), "-CAkey", str(ca_key),
                "-set_serial", f"0x{os.urandom(16).hex()}", "-sha256",
                "-days", str(SERVER_DAYS if server else CLIENT_DAYS),
                "-subj", f"/CN={check_name(name, 'name')}",
                "-extfile", str(made / "extensions"), "-out", str(made / "pem"),
            )  # fmt: skip
        except MachineFault as error:
            raise InputFault(f"no certificate for {name}: {error.what}") from error
        return (made / "pem").read_text()


def _alternative(host: str) -> str:
    try:
        return f"IP:{ipaddress.ip_address(host)}"
    except ValueError:
        if not host.replace("-", "").replace(".", "").replace("*", "").isalnum():
            raise InputFault(f"{host[:80]!r} is no host name") from None
        return f"DNS:{host}"


def _run(*arguments: str) -> str:
    """What the command said."""
    try:
        done = subprocess.run(  # noqa: S603 - no shell, names are checked
            [find_openssl(), *arguments],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise MachineFault(f"openssl {arguments[0]} did not end within {_TIMEOUT_S:g} s") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise MachineFault(f"openssl {arguments[0]} failed: {said[0][:200] if said else 'no word'}")
    return done.stdout.decode(errors="replace")
