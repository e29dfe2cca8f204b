"""The little of DER that key stores and certificates need (X.690)."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

INTEGER: Final = 0x02
OCTET_STRING: Final = 0x04
OBJECT_IDENTIFIER: Final = 0x06
UTC_TIME: Final = 0x17
SEQUENCE: Final = 0x30
SET: Final = 0x31
NULL: Final = b"\x05\x00"


class DerError(ValueError):
    """Bytes are not the DER they should be."""


def element(data: bytes, pos: int = 0) -> tuple[int, int, int]:
    """Tag of the element at ``pos``, where its content starts, and where it ends."""
    if pos + 2 > len(data):
        raise DerError("an element is cut off")
    tag, length = data[pos], data[pos + 1]
    start = pos + 2
    if tag & 0x1F == 0x1F:
        raise DerError("tags of several bytes have no place here")
    if length & 0x80:
        octets = length & 0x7F
        if not 1 <= octets <= 4 or start + octets > len(data):
            raise DerError("a length is wrong")
        length = int.from_bytes(data[start : start + octets], "big")
        start += octets
    if start + length > len(data):
        raise DerError("an element is longer than what holds it")
    return tag, start, start + length


def content(data: bytes, tag: int, pos: int = 0) -> bytes:
    """The content of the element at ``pos``, which must have this tag."""
    found, start, end = element(data, pos)
    if found != tag:
        raise DerError(f"an element has tag {found:#04x} instead of {tag:#04x}")
    return data[start:end]


def elements(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Tag, content and whole encoding of every element in a constructed one's content."""
    pos = 0
    while pos < len(data):
        tag, start, end = element(data, pos)
        yield tag, data[start:end], data[pos:end]
        pos = end


def encode(tag: int, *parts: bytes) -> bytes:
    """An element whose content is the parts one after the other."""
    body = b"".join(parts)
    size = len(body)
    if size < 0x80:
        return bytes((tag, size)) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + body


def object_identifier(body: bytes) -> str:
    """The dotted form of an object identifier's content."""
    arcs: list[int] = []
    value = 0
    for octet in body:
        value = value << 7 | octet & 0x7F
        if not octet & 0x80:
            arcs.append(value)
            value = 0
    if not arcs or (body and body[-1] & 0x80):
        raise DerError("an object identifier is cut off")
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


def subject(certificate: bytes) -> bytes:
    """The content of the subject's Name in an X.509 certificate."""
    return _certificate_field(certificate, 4)


def not_after(certificate: bytes) -> datetime:
    """When an X.509 certificate ends to be valid."""
    _, (tag, text, _) = elements(_certificate_field(certificate, 3))
    try:
        form = "%y%m%d%H%M%SZ" if tag == UTC_TIME else "%Y%m%d%H%M%SZ"
        end = datetime.strptime(text.decode("ascii"), form).replace(tzinfo=UTC)
    except ValueError:
        raise DerError("a certificate has no end") from None
    if tag == UTC_TIME and end.year >= 2050:  # RFC 5280: such years are of the last century
        end = end.replace(year=end.year - 100)
    return end


def _certificate_field(certificate: bytes, index: int) -> bytes:
    """The content of a field: serial, signature, issuer, validity, subject, key."""
    fields = list(elements(content(content(certificate, SEQUENCE), SEQUENCE)))
    if fields and fields[0][0] == 0xA0:  # the version
        del fields[0]
    if index >= len(fields) or fields[index][0] != SEQUENCE:
        raise DerError("a certificate lacks a field")
    return fields[index][1]
