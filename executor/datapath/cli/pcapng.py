"""pcapng files (draft-ietf-opsawg-pcapng): Ethernet frames with a comment each, which Wireshark and tshark show."""

from __future__ import annotations

import struct
from typing import BinaryIO

_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_MAGIC = 0x1A2B3C4D
_ETHERNET = 1
_END, _COMMENT, _NAME, _FLAGS, _RESOLUTION = 0, 1, 2, 2, 9
"""Options; 2 is the name of an interface, and of a packet its flags."""
_NANOSECONDS = bytes((9,))
_INBOUND, _OUTBOUND = 1, 2


class Writer:
    """Writes a section with an interface for each device, in the order in which they are named."""

    def __init__(self, stream: BinaryIO, devices: list[str], application: str) -> None:
        self._stream = stream
        self._numbers = {name: number for number, name in enumerate(devices)}
        # 4: shb_userappl
        self._block(_SECTION, struct.pack("=IHHq", _MAGIC, 1, 0, -1) + _options((4, application.encode())))
        for name in devices:
            options = _options((_NAME, name.encode()), (_RESOLUTION, _NANOSECONDS))
            self._block(_INTERFACE, struct.pack("=HHI", _ETHERNET, 0, 0) + options)

    def packet(self, device: str, when: int, frame: bytes, length: int, *, outbound: bool, comment: str) -> None:
        """A frame of `length` bytes, of which `frame` is the beginning; `when` in nanoseconds since the epoch."""
        head = struct.pack(
            "=IIIII", self._numbers[device], when >> 32 & 0xFFFFFFFF, when & 0xFFFFFFFF, len(frame), length
        )
        options = _options(
            (_COMMENT, comment.encode()), (_FLAGS, struct.pack("=I", _OUTBOUND if outbound else _INBOUND))
        )
        self._block(_PACKET, head + _padded(frame) + options)

    def _block(self, kind: int, body: bytes) -> None:
        size = struct.pack("=I", len(body) + 12)
        self._stream.write(struct.pack("=I", kind) + size + body + size)


def _options(*options: tuple[int, bytes]) -> bytes:
    parts = [struct.pack("=HH", code, len(value)) + _padded(value) for code, value in options]
    return b"".join(parts) + struct.pack("=HH", _END, 0)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
