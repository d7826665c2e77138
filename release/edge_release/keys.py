"""The keys of a signing repository: made once, never overwritten, readable by their owner only.

Ed25519, PKCS #8 PEM files ``<name>.pem`` of mode 0600 in a folder of mode 0700. They are not
encrypted. A role whose key is not there can be verified but not signed for: that is how root and
targets keys are kept off line.
"""

from __future__ import annotations

from pathlib import Path

from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import CryptoSigner, SSlibKey

from edge_contract.errors import InputFault, MachineFault
from edge_contract.ports.disk import read_bounded, write_atomic

KEY_MAX_BYTES = 16 * 1024
SUFFIX = ".pem"
_ADVICE = "Install it with: pip install 'edge-pack[build]'"


def generate() -> CryptoSigner:
    """A new Ed25519 key pair. Raises MachineFault without the cryptography package."""
    try:
        return CryptoSigner.generate_ed25519()
    except UnsupportedLibraryError as error:
        raise MachineFault(f"cannot make keys: {error}", advice=_ADVICE) from error


def path(folder: Path, name: str) -> Path:
    """Where the key called ``name`` lies."""
    return folder / f"{name}{SUFFIX}"


def write(folder: Path, name: str, signer: CryptoSigner) -> None:
    """Keep a private key. Raises InputFault when there is one of that name."""
    file = path(folder, name)
    if file.exists():
        raise InputFault(f"{file} exists; keys are never overwritten")
    write_atomic(file, signer.private_bytes, mode=0o600)


def present(folder: Path, name: str) -> bool:
    """Whether the private key called ``name`` is in ``folder``."""
    return path(folder, name).is_file()


def load(folder: Path, name: str) -> CryptoSigner:
    """The private key called ``name``.

    Raises InputFault when it is not there or not an Ed25519 key, MachineFault without the
    cryptography package.
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
    try:
        private = load_pem_private_key(read_bounded(file, KEY_MAX_BYTES), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputFault(f"{file} is not an unencrypted PEM private key: {error}") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise InputFault(f"{file} is not an Ed25519 key")
    return CryptoSigner(private)


def public(signer: CryptoSigner) -> SSlibKey:
    """The public half, as metadata names it."""
    return signer.public_key
