"""The bundle: a manifest, an optional signature and the members, in one canonical archive.

The archive is a POSIX ustar file (IEEE Std 1003.1, pax, "ustar Interchange Format") that
``tar tf`` can list. There is exactly one valid encoding of given members: ``read`` rebuilds
each header and refuses bytes that differ, so nothing can hide in an archive, no path leaves
its folder, no link, device or duplicate exists, and equal members give equal bytes.

Members are stored as ``NAME.z`` in the codec of ``edge_contract.codec``; ``manifest.json``
comes first and plain, ``signature.json`` second where there is one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from edge_contract import chunks
from edge_contract import manifest as manifests
from edge_contract.errors import InputFault
from edge_contract.manifest import File, Manifest
from edge_contract.names import check_name

BUNDLE_MAX_BYTES = 2 * 1024**3
SIGNATURE_MAX_BYTES = 64 * 1024
MANIFEST_MEMBER = "manifest.json"
SIGNATURE_MEMBER = "signature.json"
STORED_SUFFIX = ".z"

_BLOCK = 512
_END = bytes(2 * _BLOCK)


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory, every digest checked.

    Attributes:
        manifest: decoded. manifest_bytes: exactly what was signed.
        stored: member name -> stored bytes, as they travel.
        signature: the envelope's bytes, or b"".
    """

    manifest: Manifest
    manifest_bytes: bytes
    stored: Mapping[str, bytes]
    signature: bytes = b""

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest: the bundle's identity."""
        return manifests.digest(self.manifest_bytes)

    def file(self, name: str) -> bytes:
        """The decoded bytes of member ``name``, checked against the manifest."""
        return decode_member(self.manifest.file(name), self.stored[name])


def encode_member(name: str, raw: bytes) -> tuple[File, bytes]:
    """The manifest's entry for a member and its stored bytes."""
    from edge_contract import codec  # noqa: PLC0415 - an installed slot needs none

    stored = codec.encode(raw)
    index = chunks.index_of(stored)
    file = File(
        name=check_name(name, "member"),
        size=len(stored),
        sha256=hashlib.sha256(stored).hexdigest(),
        raw_size=len(raw),
        raw_sha256=hashlib.sha256(raw).hexdigest(),
        index=hashlib.sha256(index).hexdigest() if index else "",
    )
    return file, stored


def decode_member(file: File, stored: bytes) -> bytes:
    """The raw bytes of a member. Raises InputFault when size or digest is not the manifest's."""
    _check_stored(file, stored)
    return b"".join(decode_pieces(file, [stored]))


def decode_pieces(file: File, stored: Iterable[bytes]) -> Iterator[bytes]:
    """The raw bytes of a member whose stored bytes come in pieces, in pieces as well.

    What came may be used only when this ends without an error: digests and sizes are the
    manifest's then. Never gives more than ``file.raw_size`` bytes, whatever a blob says.

    Raises InputFault when the stored or the raw bytes are not the ones that the manifest names.
    """
    came, gave = hashlib.sha256(), hashlib.sha256()
    stored_size = raw_size = 0

    def counted() -> Iterator[bytes]:
        nonlocal stored_size
        for piece in stored:
            stored_size += len(piece)
            came.update(piece)
            yield piece

    from edge_contract import codec  # noqa: PLC0415 - an installed slot needs none

    for piece in codec.decode_pieces(counted(), size_max=file.raw_size):
        raw_size += len(piece)
        gave.update(piece)
        yield piece
    if (stored_size, came.hexdigest()) != (file.size, file.sha256):
        raise _altered(file, stored_size)
    if (raw_size, gave.hexdigest()) != (file.raw_size, file.raw_sha256):
        raise InputFault(f"{file.name}: the decoded bytes are not the ones in the manifest")


def write(manifest_bytes: bytes, stored: Mapping[str, bytes], signature: bytes = b"") -> bytes:
    """The archive's bytes. Raises InputFault when members and manifest do not agree."""
    manifest = manifests.decode(manifest_bytes)
    if set(stored) != {file.name for file in manifest.files}:
        raise InputFault("the members are not the files that the manifest names")
    parts = [_member(MANIFEST_MEMBER, manifest_bytes)]
    if signature:
        parts.append(_member(SIGNATURE_MEMBER, signature))
    for file in manifest.files:
        _check_stored(file, stored[file.name])
        parts.append(_member(file.name + STORED_SUFFIX, stored[file.name]))
    parts.append(_END)
    return b"".join(parts)


def read(data: bytes) -> Bundle:
    """The bundle in ``data``. Raises InputFault on anything but the one valid encoding."""
    if len(data) > BUNDLE_MAX_BYTES:
        raise InputFault(f"the bundle is {len(data)} bytes, over the limit of {BUNDLE_MAX_BYTES}")
    view = memoryview(data)
    manifest_bytes, at = _take(view, 0, MANIFEST_MEMBER, manifests.MANIFEST_MAX_BYTES)
    manifest = manifests.decode(manifest_bytes)
    signature = b""
    if bytes(view[at : at + len(SIGNATURE_MEMBER)]) == SIGNATURE_MEMBER.encode():
        signature, at = _take(view, at, SIGNATURE_MEMBER, SIGNATURE_MAX_BYTES)
    stored: dict[str, bytes] = {}
    for file in manifest.files:
        stored[file.name], at = _take(view, at, file.name + STORED_SUFFIX, file.size)
        _check_stored(file, stored[file.name])
    if bytes(view[at:]) != _END:
        raise _damaged("the bundle does not end where its manifest says")
    return Bundle(manifest, manifest_bytes, stored, signature)


def _check_stored(file: File, stored: bytes) -> None:
    if len(stored) != file.size or hashlib.sha256(stored).hexdigest() != file.sha256:
        raise _altered(file, len(stored))


def _altered(file: File, size: int) -> InputFault:
    return InputFault(
        f"{file.name}: {size} bytes whose digest is not the one in the manifest",
        advice="The file was altered or damaged: get it again from its publisher.",
    )


def _damaged(what: str) -> InputFault:
    return InputFault(
        what, advice="The file is cut off, altered or no .edgepack file: get it again, or build it."
    )


def _member(name: str, content: bytes) -> bytes:
    return _header(name, len(content)) + content + bytes(-len(content) % _BLOCK)


def _header(name: str, size: int) -> bytes:
    """A ustar header for a regular file: mode 0644, owner 0, time 0."""
    header = bytearray(_BLOCK)
    header[0 : len(name)] = name.encode("ascii")
    header[100:108] = b"0000644\0"
    header[108:116] = header[116:124] = b"0000000\0"
    header[124:136] = b"%011o\0" % size
    header[136:148] = b"%011o\0" % 0
    header[148:156] = b" " * 8
    header[156:157] = b"0"
    header[257:265] = b"ustar\00000"
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def _take(view: memoryview, at: int, name: str, size_max: int) -> tuple[bytes, int]:
    """The member that must stand at ``at``, and where the next one begins."""
    header = bytes(view[at : at + _BLOCK])
    if len(header) < _BLOCK:
        raise _damaged(f"the bundle is cut off before {name}")
    try:
        size = int(header[124:135], 8)
    except ValueError:
        raise _damaged(f"the bundle has no valid header for {name}") from None
    if size < 0 or header != _header(name, max(size, 0)):
        raise _damaged(f"the bundle has no valid header for {name}")
    if size > size_max:
        raise InputFault(f"{name} is {size} bytes, over the limit of {size_max}")
    start = at + _BLOCK
    end = start + size
    after = end + (-size % _BLOCK)
    if after > len(view):
        raise _damaged(f"the bundle is cut off within {name}")
    if any(view[end:after]):
        raise _damaged(f"the bundle has bytes hidden behind {name}")
    return bytes(view[start:end]), after
