"""Accounts from mosquitto's own files: password_file and acl_file, read again when they change.

Guards: what a file does not grant is refused; a file that cannot be read or has a line that is
not understood lets nobody in, rather than everybody; hashes cost a bounded time. A client id that
is the name of an account is that account's alone, so that no device can end another's session.
"""

import base64
import binascii
import hashlib
import hmac
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge_fleet.broker.access import Access, Right, Rights, User
from edge_fleet.broker.topics import is_filter

_log = logging.getLogger(__name__)

ROUNDS_MAX = 1_000_000
DOWNLOAD_SUFFIX = "-dl"  # an agent's second connection
_HASH = re.compile(r"\$7\$(\d{1,7})\$([A-Za-z0-9+/=]{4,128})\$([A-Za-z0-9+/=]{88})")
_MODES = {"read": (True, False), "write": (False, True), "readwrite": (True, True)}


@dataclass(frozen=True)
class Accounts:
    """What the two files say."""

    hashes: Mapping[str, str] = field(default_factory=dict, repr=False)
    rights: Mapping[str, tuple[Right, ...]] = field(default_factory=dict)


def parse_passwords(text: str) -> dict[str, str]:
    """User -> hash (mosquitto_passwd(1), ``$7$``: PBKDF2 with SHA-512).

    Raises ValueError at a line that is none; it does not repeat the line.
    """
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, hashed = line.strip().partition(":")
        if not name or not colon or not _HASH.fullmatch(hashed):
            raise ValueError(f"line {number} of the password file is no user:$7$... line")
        found[name] = hashed
    return found


def parse_acl(text: str) -> dict[str, tuple[Right, ...]]:
    """User -> rights (mosquitto.conf(5), acl_file), less patterns and rights of everybody.

    Raises ValueError at a line that is not understood.
    """
    found: dict[str, tuple[Right, ...]] = {}
    user = ""
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        match words:
            case [] | ["#", *_]:
                continue
            case [first, *_] if first.startswith("#"):
                continue
            case ["user", name]:
                user = name
                found.setdefault(user, ())
            case ["topic", mode, topic] if user and mode in _MODES and is_filter(topic):
                read, write = _MODES[mode]
                found[user] = (*found[user], Right(topic, read=read, write=write))
            case _:
                raise ValueError(f"line {number} of the acl file is not understood: {line[:80]!r}")
    return found


def matches(hashed: str, password: bytes) -> bool:
    """Whether ``password`` has this hash."""
    found = _HASH.fullmatch(hashed)
    if found is None or not 1 <= int(found[1]) <= ROUNDS_MAX:
        return False
    try:
        salt, digest = (base64.b64decode(found[i], validate=True) for i in (2, 3))
    except binascii.Error:
        return False
    made = hashlib.pbkdf2_hmac("sha512", password, salt, int(found[1]))
    return hmac.compare_digest(made, digest)


class FileAccess(Access):
    """Access by the files ``passwords`` and ``acl`` in a folder.

    They are looked at when somebody connects; who is connected keeps the rights of that moment.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__({}, allow_anonymous=False)
        self._paths = (folder / "passwords", folder / "acl")
        self._seen: tuple[tuple[int, int, int], ...] | None = None
        self._accounts = Accounts()

    def authenticate(self, name: str | None, password: bytes | None) -> bool:
        """Whether the name and password of a CONNECT are good."""
        self._look()
        hashed = self._accounts.hashes.get(name or "")
        return hashed is not None and matches(hashed, password or b"")

    def rights(self, name: str | None, client_id: str) -> Rights:
        """What a client may do."""
        return Rights(self._accounts.rights.get(name or "", ()), name or "", client_id)

    def may_be(self, name: str | None, client_id: str) -> bool:
        """Whether the client id is this user's to take."""
        owner = client_id.removesuffix(DOWNLOAD_SUFFIX)
        return name in {client_id, owner} or not (
            client_id in self._accounts.hashes or owner in self._accounts.hashes
        )

    def _look(self) -> None:
        try:
            seen = tuple(
                (stat.st_mtime_ns, stat.st_ino, stat.st_size)
                for stat in (path.stat() for path in self._paths)
            )
            if seen == self._seen:
                return
            passwords, acl = (path.read_text() for path in self._paths)
            self._accounts = Accounts(parse_passwords(passwords), parse_acl(acl))
            self._seen = seen
        except (OSError, ValueError) as error:
            _log.error("nobody is let in: %s", error)
            self._accounts, self._seen = Accounts(), None


def access_of(users: Mapping[str, User], allow_anonymous: bool, accounts: Path | None) -> Access:
    """By the files where there is a folder of them, else by the users that were named."""
    return Access(users, allow_anonymous) if accounts is None else FileAccess(accounts)
