"""The primitive encodings of MQTT (MQTT 5.0 §1.5). Pure.

A read takes the bytes and a position and returns the value and the next position. A read past the
end raises `ProtocolError` or IndexError; `decode.decode` turns the latter into the former.
"""

from edge_fleet.broker.errors import malformed

VARINT_MAX = 268_435_455  # four bytes of seven bits, MQTT 5.0 §1.5.5


def read_two(data: bytes, at: int) -> tuple[int, int]:
    """Two bytes, big-endian (§1.5.2)."""
    return data[at] << 8 | data[at + 1], at + 2


def read_four(data: bytes, at: int) -> tuple[int, int]:
    """Four bytes, big-endian (§1.5.3)."""
    if len(data) < at + 4:
        raise malformed(f"a four-byte integer at {at} is cut off")
    return int.from_bytes(data[at : at + 4]), at + 4


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A variable byte integer in its shortest form (§1.5.5)."""
    value = 0
    for shift in (0, 7, 14, 21):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and shift:
                raise malformed("a variable byte integer is longer than it needs to be")
            return value, at
    raise malformed("a variable byte integer has more than four bytes")


def read_binary(data: bytes, at: int) -> tuple[bytes, int]:
    """Up to 65,535 bytes after their length (§1.5.6)."""
    start = at + 2
    end = start + (data[at] << 8 | data[at + 1])
    if end > len(data):
        raise malformed(f"{end - start} bytes announced at {at}, {len(data) - start} there")
    return data[start:end], end


def read_text(data: bytes, at: int) -> tuple[str, int]:
    """A UTF-8 string without U+0000 and surrogates (§1.5.4)."""
    raw, end = read_binary(data, at)
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise malformed(f"the string at {at} is not UTF-8: {error.reason}") from error
    if "\0" in text:
        raise malformed(f"the string at {at} contains U+0000")
    return text, end


def read_pair(data: bytes, at: int) -> tuple[tuple[str, str], int]:
    """Two UTF-8 strings: a name and a value (§1.5.7)."""
    name, at = read_text(data, at)
    value, at = read_text(data, at)
    return (name, value), at


def write_varint(value: int) -> bytes:
    """The shortest variable byte integer; ValueError past 268,435,455."""
    if value < 0x80:
        return bytes((value,))
    if value > VARINT_MAX:
        raise ValueError(f"{value} does not fit a variable byte integer")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def write_binary(value: bytes) -> bytes:
    """Length and bytes; ValueError past 65,535."""
    if len(value) > 0xFFFF:
        raise ValueError(f"{len(value)} bytes do not fit a field of 65,535")
    return len(value).to_bytes(2) + value


def write_text(value: str) -> bytes:
    """Length and UTF-8."""
    return write_binary(value.encode())


def write_pair(value: tuple[str, str]) -> bytes:
    """Name and value."""
    return write_text(value[0]) + write_text(value[1])
