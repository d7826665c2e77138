"""Accounts and tokens as values: what admits, what refuses, what the broker's files hold."""

from __future__ import annotations

import hashlib

import pytest
from msgspec.structs import replace

from edge_contract.access import passwords, registry
from edge_contract.access.enrolment import Answer, Request
from edge_contract.access.registry import Account, Refusal, Registry, Token
from edge_contract.errors import InputFault

SECRET = "s" * 32
HASH = passwords.hashed("p", b"123456789012")
DEAR = passwords.hashed("p", b"123456789012", rounds=passwords.ROUNDS + 1)
NOW = 1_000_000


def token(**changes: object) -> Token:
    made = Token(
        id="t1", fleet="home", device="pi7", secret=hashlib.sha256(SECRET.encode()).hexdigest(),
        password=HASH, created_s=NOW, expires_s=NOW + 3600,
    )  # fmt: skip
    return replace(made, **changes)


def request(**changes: object) -> Request:
    return replace(Request(secret=SECRET, device="pi7", password=HASH, machine="m1"), **changes)


def with_(*tokens: Token, **accounts: Account) -> Registry:
    return Registry(tokens={each.id: each for each in tokens}, accounts=accounts)


def used(known: Registry, by: Request) -> Registry:
    found = registry.redeem(known, "t1", by, NOW + 1)
    return registry.redeemed(known, found, by, Answer(request=by.digest), NOW + 1)


TAKEN = Account(name="pi7", role="client", fleet="home", password=HASH)


@pytest.mark.parametrize(
    ("known", "asked", "now_s", "kind"),
    [
        (with_(), request(), NOW, "bad-token"),
        (with_(token()), request(secret="x" * 32), NOW, "bad-token"),
        (with_(token(revoked=True)), request(), NOW, "revoked-token"),
        (used(with_(token()), request()), request(machine="m2"), NOW, "reused-token"),
        (used(with_(token()), request()), request(password=HASH[:-3] + "A=="), NOW, "reused-token"),
        (with_(token()), request(), NOW + 3600, "expired-token"),
        (with_(token()), request(device="pi8"), NOW, "bad-token"),
        (with_(token(), pi7=TAKEN), request(), NOW, "bad-token"),
        (with_(token(device=""), pi7=replace(TAKEN, role="device")), request(), NOW, "bad-token"),
        (with_(token()), request(password=""), NOW, "bad-token"),
        (with_(token()), request(password="plain"), NOW, "bad-token"),
        (with_(token()), request(password=DEAR), NOW, "bad-token"),
        (with_(token(device="")), request(device="enroll.t2"), NOW, "bad-token"),
        (with_(token()), request(password=HASH + "\nroot:" + HASH), NOW, "bad-token"),
    ],
)  # fmt: skip
def test_a_token_that_does_not_fit_is_refused(
    known: Registry, asked: Request, now_s: int, kind: str
) -> None:
    with pytest.raises(Refusal) as caught:
        registry.redeem(known, "t1", asked, now_s)
    assert caught.value.kind == kind
    assert SECRET not in caught.value.what


def test_the_same_request_gets_the_same_answer_and_changes_nothing() -> None:
    known = used(with_(token()), request())
    again = registry.redeem(known, "t1", request(), NOW + 99_999)
    assert again.answer == Answer(request=request().digest)
    assert known.accounts["pi7"].password == HASH


def test_a_device_that_is_set_up_anew_gets_its_name_back_by_a_token_for_that_name() -> None:
    old = Account(name="pi7", role="device", fleet="home", password="$7$old")
    known = used(with_(token(), pi7=old), request())
    assert known.accounts["pi7"].password == HASH


def test_the_brokers_files_hold_live_tokens_and_no_secret() -> None:
    known = with_(token(), token(id="t2", revoked=True), token(id="t3", expires_s=NOW - 1))
    listed = registry.passwords_file(known, NOW)
    assert listed == f"enroll.t1:{HASH}\n"
    rights = registry.acl_file(known, NOW)
    assert "user enroll.t1\ntopic write edge/1/home/enroll/t1/req\n" in rights
    assert "t2" not in rights + listed
    assert SECRET not in listed + rights + registry.encode(known).decode()
    assert registry.decode(registry.encode(known)) == known


def test_a_name_belongs_to_one_account() -> None:
    known = with_(pi7=TAKEN)
    with pytest.raises(InputFault, match="is a client of fleet home already"):
        registry.with_account(known, replace(TAKEN, role="device"))
    with pytest.raises(InputFault, match="are for tokens"):
        registry.with_account(known, replace(TAKEN, name="enroll.t1"))
    with pytest.raises(InputFault, match="not a valid name"):
        registry.with_account(known, replace(TAKEN, name="a\nuser b"))


def test_tokens_that_are_over_do_not_pile_up() -> None:
    known = with_()
    for i in range(registry.TOKENS_KEPT + 50):
        known = registry.with_token(known, token(id=f"t{i}", device="", created_s=NOW + 9999 * i))
    assert len(known.tokens) <= registry.TOKENS_KEPT


def test_no_account_takes_the_client_id_of_a_download_connection() -> None:
    with pytest.raises(InputFault, match="download connections"):
        registry.with_account(Registry(), Account(name="pi7-dl", role="device", fleet="home"))
