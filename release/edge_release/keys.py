"""Private keys in files: made once, never overwritten, readable by their owner only.

Ed25519, PKCS #8 PEM files ``<name>.pem`` of mode 0600 in a folder of mode 0700, encrypted where a
passphrase was given (PBES2, AES-256). Beside each lies ``<name>.pub``, see ``ring``. A role whose
key is not there can be verified but not signed for: that is how root and targets keys are kept off
line.

Guards: a key file, or a folder of keys, that others may read is not used until that is mended.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import CryptoSigner

from edge_contract.errors import InputFault, MachineFault
from edge_contract.ports.disk import read_bounded, write_atomic

KEY_MAX_BYTES = 16 * 1024
SUFFIX = ".pem"
PASSPHRASE_MIN = 8
"""Characters. PKCS #8 stretches a passphrase little: who has the file can guess at leisure."""
_ENCRYPTED = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
_ADVICE = "Install it with: pip install 'edge-pack[build]', or 'edge-pack[fleet]' on a server."

Secrets = Callable[[str], str]
"""Asked for a secret by what it is, such as ``passphrase of keys/root.pem``; returns it."""


def no_secrets(what: str) -> str:
    """The ``Secrets`` of who was told none. Raises InputFault."""
    raise InputFault(
        f"the {what} is needed",
        advice="Give it by --passphrase-file, in EDGE_PACK_PASSPHRASE, or type it when asked on a"
        " terminal; a hardware token's PIN in EDGE_PACK_PIN.",
    )


def generate() -> CryptoSigner:
    """A new Ed25519 key pair. Raises MachineFault without the cryptography package."""
    try:
        return CryptoSigner.generate_ed25519()
    except UnsupportedLibraryError as error:
        raise MachineFault(f"cannot make keys: {error}", advice=_ADVICE) from error


def path(folder: Path, name: str) -> Path:
    """Where the key called ``name`` lies."""
    return folder / f"{name}{SUFFIX}"


def write(folder: Path, name: str, signer: CryptoSigner, passphrase: str = "") -> None:
    """Keep a private key, encrypted if ``passphrase`` is given.

    Raises InputFault when there is one of that name, or the passphrase is too short.
    """
    file = path(folder, name)
    if file.exists():
        raise InputFault(f"{file} exists; keys are never overwritten")
    data = _encrypted(signer.private_bytes, passphrase) if passphrase else signer.private_bytes
    write_atomic(file, data, mode=0o600)


def check_passphrase(passphrase: str) -> str:
    """The passphrase, long enough to be one. Raises InputFault."""
    if len(passphrase) < PASSPHRASE_MIN:
        raise InputFault(
            f"the passphrase has {len(passphrase)} characters, expected at least {PASSPHRASE_MIN}",
            advice="Four or five random words are easy to type and hard to guess.",
        )
    return passphrase


def present(folder: Path, name: str) -> bool:
    """Whether the private key called ``name`` is in ``folder``."""
    return path(folder, name).is_file()


def encrypted(folder: Path, name: str) -> bool:
    """Whether the private key called ``name`` needs a passphrase."""
    return read_bounded(path(folder, name), KEY_MAX_BYTES).lstrip().startswith(_ENCRYPTED)


def load(folder: Path, name: str, secrets: Secrets = no_secrets) -> CryptoSigner:
    """The private key called ``name``.

    Raises InputFault when it is not there, not an Ed25519 key, readable by others or encrypted
    with another passphrase, MachineFault without the cryptography package.
    """
    try:
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - an extra
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
            Ed25519PrivateKey,
        )
        from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
            load_pem_private_key,
        )
    except ModuleNotFoundError as error:
        raise MachineFault("signing needs the cryptography package", advice=_ADVICE) from error
    file = path(folder, name)
    if not file.is_file():
        raise InputFault(
            f"there is no key {file}",
            advice="Make keys with `edge-pack keys init DIR`, or bring the file back from where it"
            " is kept.",
        )
    check_private(file)
    data = read_bounded(file, KEY_MAX_BYTES)
    password = secrets(f"passphrase of {file}").encode() if encrypted(folder, name) else None
    try:
        private = load_pem_private_key(data, password=password)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if password is not None:
            raise InputFault(
                f"{file} does not open: another passphrase, or a damaged file",
                advice="Type the passphrase again; it is the one given to `edge-pack keys init`.",
            ) from error
        raise InputFault(f"{file} is not a PEM private key: {error}") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise InputFault(f"{file} is not an Ed25519 key")
    return CryptoSigner(private)


def check_private(file: Path) -> None:
    """Raise InputFault when others than the owner may read the key file, or list its folder."""
    for place, right in ((file.parent, "700"), (file, "600")):
        mode = stat.S_IMODE(place.stat().st_mode)
        if mode & 0o077:
            raise InputFault(
                f"{place} may be read by others than its owner: mode {mode:04o}, expected {right}",
                advice=f"Run `chmod {right} {place}`; if others could log in here, take the key as"
                " stolen and replace it with `edge-pack keys rotate`.",
            )


def _encrypted(pem: bytes, passphrase: str) -> bytes:
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - an extra
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    secret = check_passphrase(passphrase).encode()
    return load_pem_private_key(pem, password=None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(secret)
    )
