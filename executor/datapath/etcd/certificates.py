"""What of an X.509 certificate is told to people: serial number, common name, validity.

The standard library tells it only of a peer's certificate that it has verified, and those that it has not are the
interesting ones.
"""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional

_INTEGER, _SEQUENCE, _SET, _UTC_TIME, _VERSION = 0x02, 0x30, 0x31, 0x17, 0xA0
_COMMON_NAME = bytes((0x55, 0x04, 0x03))


@dataclass(frozen=True)
class Certificate:
    """A certificate's own words."""

    serial: str
    """In hexadecimal digits."""
    common_name: str
    not_before: datetime.datetime
    not_after: datetime.datetime

    def problem(self, now: Optional[datetime.datetime] = None) -> Optional[str]:
        """Why it cannot be used at this time."""
        now = now or datetime.datetime.now(datetime.timezone.utc)
        if now > self.not_after:
            return f"expired on {self.not_after:%Y-%m-%d %H:%M} UTC"
        if now < self.not_before:
            return f"is valid only from {self.not_before:%Y-%m-%d %H:%M} UTC on"
        return None


def parse_pem(text: str) -> Certificate:
    """The first certificate in a PEM file. Raises ValueError."""
    start, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    if start not in text or end not in text:
        raise ValueError("there is no certificate in it")
    first = text[text.index(start) : text.index(end) + len(end)]
    return parse_der(ssl.PEM_cert_to_DER_cert(first))


def parse_der(data: bytes) -> Certificate:
    """A certificate as it is sent. Raises ValueError."""
    try:
        whole = next(_elements(data))[1]
        signed = next(_elements(whole))[1]
        fields = [(tag, content) for tag, content in _elements(signed) if tag != _VERSION]
        serial, _, _, validity, subject = (content for _, content in fields[:5])
        times = list(_elements(validity))
        return Certificate(
            serial=f"{int.from_bytes(serial, 'big'):x}",
            common_name=_common_name(subject),
            not_before=_time(*times[0]),
            not_after=_time(*times[1]),
        )
    except (IndexError, StopIteration, UnicodeDecodeError) as error:
        raise ValueError("not a certificate") from error


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each element (DER: definite lengths, tags of one byte are all that a certificate has)."""
    position = 0
    while position < len(data):
        tag, length = data[position], data[position + 1]
        position += 2
        if length & 0x80:
            count = length & 0x7F
            length = int.from_bytes(data[position : position + count], "big")
            position += count
        if position + length > len(data):
            raise ValueError("not a certificate")
        yield tag, data[position : position + length]
        position += length


def _common_name(subject: bytes) -> str:
    for _, names in _elements(subject):
        for _, name in _elements(names):
            (_, kind), (_, value) = list(_elements(name))[:2]
            if kind == _COMMON_NAME:
                return value.decode()
    return ""


def _time(tag: int, content: bytes) -> datetime.datetime:
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        # RFC 5280, 4.1.2.5.1
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    return datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.timezone.utc)
