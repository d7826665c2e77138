"""Which private keys this machine can sign with, by the key id that metadata names.

Each key is known by its public half, ``<name>.pub``: what TUF metadata says of a key, with its id.
The private half is ``<name>.pem`` beside it, or lies where the ``uri`` in the file says: in a
hardware token (``hsm:``) or a key service (``awskms:``, ``gcpkms:``, ``azurekms:``, ``hv:``),
signed with by securesystemslib's own signers. A ``.pub`` alone is a colleague's key.

Guards: a key's id is the digest of its content, whatever the file says; a private key that does
not belong to its public half is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from securesystemslib.exceptions import Error as LibraryError
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import Key, Signer

from edge_contract import wire
from edge_contract.errors import EdgeError, InputFault, MachineFault
from edge_contract.names import check_name
from edge_contract.ports.disk import read_bounded, write_atomic
from edge_release import keys
from edge_release.keys import KEY_MAX_BYTES, Secrets, no_secrets

SUFFIX = ".pub"
ED25519 = "ed25519"
SCHEMES = ("hsm", "awskms", "gcpkms", "azurekms", "hv", "tkey")
"""Where a key may lie instead of in a file; each is a signer of securesystemslib."""


class _Public(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A ``.pub`` file."""

    keytype: str
    scheme: str
    keyval: dict[str, str]
    uri: str = ""


@dataclass(frozen=True)
class Entry:
    """A key that is known here. ``held``: this machine has, or can reach, its private half."""

    name: str
    key: Key
    uri: str = ""
    held: bool = False


class Ring:
    """The keys in a folder. ``secrets`` is asked for passphrases and PINs when signing."""

    def __init__(self, folder: Path, secrets: Secrets = no_secrets) -> None:
        self.folder = folder
        self.secrets = secrets
        self._signers: dict[str, Signer] = {}

    def entries(self) -> dict[str, Entry]:
        """Every known key by its id. Raises InputFault when a ``.pub`` file is damaged."""
        found: dict[str, Entry] = {}
        names = {file.stem for file in self.folder.glob(f"*{SUFFIX}")}
        names |= {file.stem for file in self.folder.glob(f"*{keys.SUFFIX}")}
        for name in sorted(names):
            entry = self._entry(name)
            if entry is not None and (entry.held or entry.key.keyid not in found):
                found[entry.key.keyid] = entry
        return found

    def entry(self, name: str) -> Entry:
        """The key called ``name``. Raises InputFault when there is none."""
        found = self._entry(name)
        if found is None:
            raise InputFault(
                f"there is no key called {name} in {self.folder}",
                advice=f"Expected {name}{SUFFIX} there, or --new to make one.",
            )
        return found

    def held(self, keyids: list[str]) -> list[str]:
        """Those of ``keyids`` that can be signed with here."""
        entries = self.entries()
        return [each for each in keyids if each in entries and entries[each].held]

    def name(self, keyid: str) -> str:
        """What a person calls a key: its name here, or the beginning of its id."""
        entry = self.entries().get(keyid)
        return entry.name if entry else keyid[:8]

    def signer(self, keyid: str) -> Signer:
        """What signs with that key.

        Raises InputFault when its private half is not here or does not open, MachineFault when a
        library or token is missing.
        """
        if keyid not in self._signers:
            entry = self.entries().get(keyid)
            if entry is None:
                raise InputFault(f"key {keyid[:8]} is not known in {self.folder}")
            self._signers[keyid] = self._open(entry)
        return self._signers[keyid]

    def add(self, name: str, key: Key, uri: str = "") -> Entry:
        """Know a public key from now on. Raises InputFault when the name is taken."""
        file = self.folder / f"{check_name(name, 'key')}{SUFFIX}"
        if file.exists():
            raise InputFault(f"{file} exists; keys are never overwritten")
        write_atomic(file, public_bytes(key, uri))
        return self.entry(name)

    def generate(self, name: str, passphrase: str = "") -> Entry:
        """Make an Ed25519 key pair. Raises InputFault when the name is taken."""
        check_name(name, "key")
        if (self.folder / f"{name}{SUFFIX}").exists():
            raise InputFault(f"there is a key called {name} already; keys are never overwritten")
        signer = keys.generate()
        keys.write(self.folder, name, signer, passphrase)
        return self.add(name, signer.public_key)

    def fresh_name(self, role: str) -> str:
        """A name for another key of ``role`` that no file has."""
        number = 2
        while any(
            (self.folder / f"{role}-{number}{suffix}").exists() for suffix in (SUFFIX, keys.SUFFIX)
        ):
            number += 1
        return f"{role}-{number}"

    @property
    def encrypts(self) -> bool:
        """Whether keys here have a passphrase, so that a new one should."""
        return any(
            keys.encrypted(self.folder, file.stem) for file in self.folder.glob(f"*{keys.SUFFIX}")
        )

    def _entry(self, name: str) -> Entry | None:
        file = self.folder / f"{name}{SUFFIX}"
        if file.is_file():
            key, uri = public_of(read_bounded(file, KEY_MAX_BYTES), str(file))
            return Entry(name, key, uri, bool(uri) or keys.present(self.folder, name))
        # A folder without .pub files: an open key still says its public half itself.
        if keys.present(self.folder, name) and not keys.encrypted(self.folder, name):
            try:
                return Entry(name, keys.load(self.folder, name).public_key, "", held=True)
            except InputFault:
                return None
        return None

    def _open(self, entry: Entry) -> Signer:
        if not entry.uri:
            signer = keys.load(self.folder, entry.name, self.secrets)
            if signer.public_key.keyval != entry.key.keyval:
                raise InputFault(
                    f"{entry.name}{keys.SUFFIX} is not the key that {entry.name}{SUFFIX} says",
                    advice="Bring the two files back from the same copy.",
                )
            return signer
        with _outside(entry.uri):
            return Signer.from_priv_key_uri(
                entry.uri, entry.key, lambda secret: self.secrets(f"{secret} of {entry.uri}")
            )


def public_bytes(key: Key, uri: str = "") -> bytes:
    """The content of a ``.pub`` file."""
    found = _Public(keytype=key.keytype, scheme=key.scheme, keyval=key.keyval, uri=uri)
    return wire.encode_json(found)


def public_of(data: bytes, where: str) -> tuple[Key, str]:
    """The key and the URI in a ``.pub`` file. Raises InputFault when it is not one."""
    found = wire.decode_json(data, _Public, size_max=KEY_MAX_BYTES)
    content: dict[str, Any] = msgspec.to_builtins(found)
    content.pop("uri", None)
    keyid = hashlib.sha256(str(encode_canonical(content)).encode()).hexdigest()
    try:
        return Key.from_dict(keyid, content), _checked(found.uri)
    except (ValueError, KeyError, TypeError) as error:
        raise InputFault(f"{where} is not a public key: {error}") from error


def from_uri(uri: str, secrets: Secrets) -> tuple[Key, str]:
    """The public half of a key in a token or key service, and the URI to sign by.

    Raises InputFault when the URI is of no known kind, MachineFault when it cannot be reached.
    """
    from securesystemslib import signer as signers  # noqa: PLC0415 - only for keys outside

    scheme, _, rest = _checked(uri).partition(":")
    with _outside(uri):
        match scheme:
            case "hsm":
                number, _, query = rest.partition("?")
                label = query.removeprefix("label=").replace("+", " ") or None
                found = signers.HSMSigner.import_(
                    int(number) if number else None, label, lambda what: secrets(f"{what} of {uri}")
                )
            case "awskms":
                found = signers.AWSSigner.import_(rest)
            case "gcpkms":
                found = signers.GCPSigner.import_(rest)
            case "azurekms":
                vault, _, name = rest.partition("/")
                found = signers.AzureSigner.import_(vault, name)
            case "hv":
                found = signers.VaultSigner.import_(rest.partition("/")[0])
            case _:
                found = signers.TKeySigner.import_()
    return found[1], found[0]


def _checked(uri: str) -> str:
    if uri and uri.partition(":")[0] not in SCHEMES:
        raise InputFault(
            f"{uri[:80]!r} is no place of a key, expected one of"
            f" {', '.join(scheme + ':' for scheme in SCHEMES)}"
        )
    return uri


@contextmanager
def _outside(uri: str) -> Iterator[None]:
    """A token's, service's or library's own errors, of whichever kind, as MachineFault."""
    try:
        yield
    except EdgeError:
        raise
    except Exception as error:  # securesystemslib: signers raise what their libraries raise
        said = str(error) or type(error).__name__
        extra = "hsm" if uri.startswith("hsm:") else "kms"
        advice = (
            f"Install the library with: pip install 'edge-pack[{extra}]'"
            if isinstance(error, LibraryError)
            else "Check the URI, that the token or service can be reached from here, and the PIN or"
            " credentials; hsm: also needs PYKCS11LIB, the path of the PKCS #11 module."
        )
        raise MachineFault(f"cannot use the key {uri}: {said}", advice=advice) from error
