"""The accounts and one-time tokens of one broker, and its files from them. Pure.

Guards: a name belongs to one account; a token is good once, for one device, until it expires; no
secret is here, only hashes.

``accounts.json`` is the truth; ``passwords`` and ``acl`` are written anew from it at each change.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from edge_contract import wire
from edge_contract.access import passwords
from edge_contract.access.enrolment import Answer, Request
from edge_contract.access.rights import Role, acl_lines, rights
from edge_contract.errors import InputFault
from edge_contract.messages import Count, Name, Sha256, Short
from edge_contract.names import check_name
from edge_contract.topics import DEFAULT_PREFIX, Topics

REGISTRY_MAX_BYTES = 256 * 1024**2
TOKENS_KEPT = 1000
"""Tokens that are over stay for whoever asks what became of them; the oldest go first."""
DOWNLOAD_SUFFIX = "-dl"
TOKEN_USER = "enroll."  # noqa: S105 - a name
"""What the broker's user of a token begins with; the token's id follows."""

AccountRole = Literal["publisher", "fleet", "device", "client"]


class Account(Struct, frozen=True, kw_only=True):
    """A user of the broker. ``password``: its hash, or "" where only a certificate lets it in."""

    name: Name
    role: AccountRole
    fleet: Name
    password: Short = ""


class Token(Struct, frozen=True, kw_only=True):
    """Leave to enrol one device, once.

    Attributes:
        device: the name it must take; "" lets it choose one that is free.
        secret: SHA-256 of the secret. password: the broker's hash of the same.
        used_s, used_by, machine: by whom it was used and when; 0 and "" before.
        request: SHA-256 of the request that used it: the same one again gets the same answer.
    """

    id: Name
    fleet: Name
    device: Annotated[str, Meta(max_length=64)] = ""
    channel: Name = "stable"
    secret: Sha256
    password: Short
    created_s: Count
    expires_s: Count
    used_s: Count = 0
    used_by: Annotated[str, Meta(max_length=64)] = ""
    machine: Short = ""
    request: Annotated[str, Meta(max_length=64)] = ""
    answer: Answer | None = None
    revoked: bool = False

    def state(self, now_s: int) -> str:
        """``open``, ``used``, ``revoked`` or ``expired``."""
        if self.revoked:
            return "revoked"
        if self.used_s:
            return "used"
        return "open" if now_s < self.expires_s else "expired"


class Registry(Struct, frozen=True, kw_only=True):
    """Every account and token of one broker."""

    schema: int = 1
    prefix: str = DEFAULT_PREFIX
    accounts: dict[Name, Account] = {}
    tokens: dict[Name, Token] = {}

    def topics(self, fleet: str) -> Topics:
        """The topics of one of its fleets."""
        return Topics(fleet, self.prefix)


class Refusal(Exception):
    """Why a request for enrolment is refused; ``kind`` names the fault in the fleet's reports."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.kind = kind
        self.what = what


def encode(registry: Registry) -> bytes:
    """As JSON."""
    return wire.encode_json(registry)


def decode(data: bytes) -> Registry:
    """The registry in ``data``. Raises InputFault when it is none."""
    return wire.decode_json(data, Registry, size_max=REGISTRY_MAX_BYTES)


# -- accounts ----------------------------------------------------------------------------------


def with_account(registry: Registry, account: Account) -> Registry:
    """With this account, new or changed. Raises InputFault when the name is another's."""
    check_name(account.name, "account")
    known = registry.accounts.get(account.name)
    if known is not None and (known.role, known.fleet) != (account.role, account.fleet):
        raise InputFault(
            f"account {account.name!r} is a {known.role} of fleet {known.fleet} already",
            advice="A broker knows each name once: choose another.",
        )
    _check_not_reserved(account.name)
    return replace(registry, accounts={**registry.accounts, account.name: account})


def without_account(registry: Registry, name: str) -> Registry:
    """Without this account. Raises InputFault when there is none."""
    if name not in registry.accounts:
        raise InputFault(f"there is no account {name[:80]!r}")
    accounts = {key: value for key, value in registry.accounts.items() if key != name}
    return replace(registry, accounts=accounts)


# -- tokens ------------------------------------------------------------------------------------


def with_token(registry: Registry, token: Token) -> Registry:
    """With this new token. Raises InputFault when its device has an account in another fleet."""
    check_name(token.id, "token")
    if token.device:
        _check_free(registry, token.device, token.fleet)
    over = [each.id for each in registry.tokens.values() if each.state(token.created_s) != "open"]
    gone = set(over[: max(len(registry.tokens) - TOKENS_KEPT + 1, 0)])
    kept = {key: value for key, value in registry.tokens.items() if key not in gone}
    return replace(registry, tokens={**kept, token.id: token})


def revoke(registry: Registry, token_id: str) -> Registry:
    """With this token void. Raises InputFault when there is none, or it was used."""
    token = registry.tokens.get(token_id)
    if token is None:
        raise InputFault(
            f"there is no token {token_id[:80]!r}", advice="`edge-fleet tokens list` names them."
        )
    if token.used_s:
        raise InputFault(
            f"token {token_id} was used by {token.used_by}",
            advice="Take the device's account away instead: edge-pack broker-acl --remove DEVICE.",
        )
    return replace(registry, tokens={**registry.tokens, token_id: replace(token, revoked=True)})


def redeem(registry: Registry, token_id: str, request: Request, now_s: int) -> Token:
    """The token that admits ``request``; used already when the request came before.

    Steps: 1. the token exists; 2. the secret is its secret; 3. it is not void; 4. it was not
    used, but by this very request; 5. it has not expired; 6. the name is the one it was made for,
    or a free one; 7. the password is a hash that costs the broker no more than our own. Raises
    Refusal.
    """
    token = registry.tokens.get(token_id)  # 1
    given = hashlib.sha256(request.secret.encode()).hexdigest()
    if token is None or not hmac.compare_digest(given, token.secret):  # 2
        raise Refusal("bad-token", "no such token")
    if token.revoked:  # 3
        raise Refusal("revoked-token", f"token {token_id} was revoked")
    if token.used_s:  # 4
        if token.request == request.digest:
            return token
        raise Refusal(
            "reused-token",
            f"token {token_id} was used before, by {token.used_by} on machine"
            f" {token.machine or 'unknown'}; now by machine {request.machine[:40] or 'unknown'}",
        )
    if now_s >= token.expires_s:  # 5
        raise Refusal("expired-token", f"token {token_id} has expired")
    if token.device and request.device != token.device:  # 6
        raise Refusal("bad-token", f"token {token_id} is for device {token.device}")
    try:
        _check_free(registry, request.device, token.fleet, taken=not token.device)
    except InputFault as error:
        raise Refusal("bad-token", error.what) from error
    if not request.password and not request.csr:
        raise Refusal("bad-token", "the request has neither password nor certificate request")
    if request.password and not passwords.is_hash(
        request.password, rounds_max=passwords.ROUNDS
    ):  # 7
        raise Refusal("bad-token", "the password's hash is malformed")
    return token


def redeemed(
    registry: Registry, token: Token, request: Request, answer: Answer, now_s: int
) -> Registry:
    """With the token used and the device's account in place."""
    account = Account(
        name=request.device, role="device", fleet=token.fleet, password=request.password
    )
    used = replace(
        token,
        used_s=max(now_s, 1),
        used_by=request.device,
        machine=request.machine,
        request=request.digest,
        answer=answer,
    )
    changed = with_account(registry, account)
    return replace(changed, tokens={**changed.tokens, token.id: used})


def _check_free(registry: Registry, device: str, fleet: str, *, taken: bool = False) -> None:
    """The name may become a device's of ``fleet``; with ``taken``, only where nobody has it."""
    check_name(device, "device")
    _check_not_reserved(device)
    known = registry.accounts.get(device)
    if known is not None and (taken or (known.role, known.fleet) != ("device", fleet)):
        raise InputFault(
            f"the name {device!r} is taken by a {known.role} of fleet {known.fleet}",
            advice="Choose another name.",
        )


def _check_not_reserved(name: str) -> None:
    if name.startswith(TOKEN_USER):
        raise InputFault(f"account {name!r}: names with {TOKEN_USER!r} are for tokens")
    if name.endswith(DOWNLOAD_SUFFIX):
        raise InputFault(
            f"account {name!r}: names that end in {DOWNLOAD_SUFFIX!r} are client ids of devices'"
            " download connections"
        )


# -- the broker's files ------------------------------------------------------------------------


def passwords_file(registry: Registry, now_s: int) -> str:
    """mosquitto's password_file: accounts with a password, and tokens that are not over.

    A used token stays until it expires, so that a second use is heard of and not only refused.
    """
    lines = [f"{each.name}:{each.password}" for each in _sorted(registry.accounts) if each.password]
    lines += [f"{TOKEN_USER}{token.id}:{token.password}" for token in _live(registry, now_s)]
    return "".join(f"{line}\n" for line in lines)


def acl_file(registry: Registry, now_s: int) -> str:
    """mosquitto's acl_file. What it does not name is refused."""
    parts = [["# Written anew at each change of accounts.json beside it: change it by command."]]
    for each in _sorted(registry.accounts):
        parts.append(_user(each.name, each.role, each.name, registry.topics(each.fleet)))
    for token in _live(registry, now_s):
        topics = registry.topics(token.fleet)
        parts.append(_user(f"{TOKEN_USER}{token.id}", "token", token.id, topics))
    return "\n".join("".join(f"{line}\n" for line in lines) for lines in parts)


def _user(user: str, role: Role, name: str, topics: Topics) -> list[str]:
    return acl_lines(user, rights(role, name, topics))


def _live(registry: Registry, now_s: int) -> Iterable[Token]:
    return [
        token
        for _, token in sorted(registry.tokens.items())
        if not token.revoked and now_s < token.expires_s
    ]


def _sorted(accounts: Mapping[str, Account]) -> list[Account]:
    return [accounts[name] for name in sorted(accounts)]
