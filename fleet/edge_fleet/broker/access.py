"""Who may connect, and read or write which topics. Pure."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_fleet.broker.topics import covers, is_filter


@dataclass(frozen=True)
class Right:
    """Permission for the topics that `pattern` matches.

    `%u` in a pattern stands for the user's name and `%c` for the client id.
    """

    pattern: str
    read: bool = False
    write: bool = False


@dataclass(frozen=True)
class User:
    """A password and rights; no rights: may connect, and nothing else."""

    password: str = field(repr=False)
    rights: tuple[Right, ...] = ()


def faults(users: Mapping[str, User]) -> list[str]:
    """What is wrong with the users of a configuration."""
    return [
        f"users.{name}: {right.pattern!r} is no topic filter"
        for name, user in users.items()
        for right in user.rights
        if not is_filter(right.pattern.replace("%u", "u").replace("%c", "c"))
    ]


class Access:
    """The users of one broker; without users everyone may do everything."""

    def __init__(self, users: Mapping[str, User], allow_anonymous: bool) -> None:
        self._users = users
        self._allow_anonymous = allow_anonymous

    def authenticate(self, name: str | None, password: bytes | None) -> bool:
        """Whether the name and password of a CONNECT are good, in constant time."""
        if name is None:
            return self._allow_anonymous or not self._users
        if not self._users:
            return True
        user = self._users.get(name)
        expected = user.password.encode() if user else b"\0no such user"
        return hmac.compare_digest(expected, password or b"") and user is not None

    def may_be(self, name: str | None, client_id: str) -> bool:
        """Whether the client id is this user's to take."""
        return True

    def rights(self, name: str | None, client_id: str) -> "Rights | None":
        """What a client may do; None: everything."""
        if not self._users:
            return None
        user = self._users.get(name) if name is not None else None
        return Rights(user.rights if user else (), name or "", client_id)


class Rights:
    """The rights of one connection, with its names filled in."""

    def __init__(self, rights: tuple[Right, ...], username: str, client_id: str) -> None:
        self._read = _fill([right.pattern for right in rights if right.read], username, client_id)
        self._write = _fill([right.pattern for right in rights if right.write], username, client_id)
        self._may_write: dict[str, bool] = {}

    def may_read(self, topic_filter: str) -> bool:
        """Whether one right covers the whole filter: a subscription is never granted in part."""
        return any(covers(pattern, topic_filter) for pattern in self._read)

    def may_write(self, topic: str) -> bool:
        """Whether a right covers the topic."""
        known = self._may_write.get(topic)
        if known is None:
            if len(self._may_write) >= 1000:
                self._may_write.clear()
            known = any(covers(pattern, topic) for pattern in self._write)
            self._may_write[topic] = known
        return known


def _fill(patterns: list[str], username: str, client_id: str) -> list[str]:
    """Patterns with the names in place, but for names whose `+`, `#` or `/` would widen them."""
    filled = []
    for pattern in patterns:
        result = pattern
        for mark, name in (("%u", username), ("%c", client_id)):
            if mark in pattern:
                result = "" if not name or set(name) & set("+#/") else result.replace(mark, name)
        if result:
            filled.append(result)
    return filled
