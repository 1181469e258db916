"""Fields of values in stores, read or refused by `QuarantineError`: somebody else wrote them (pure)."""

from __future__ import annotations

import base64
import ipaddress
import json
from collections.abc import Mapping, Sequence
from typing import Any, Union

from datapath.spec.errors import RefusedError
from datapath.spec.scalars import parse_address
from datapath.state.model import IPAddress, IPNetwork

LARGEST_VALUE = 1 << 20
"""Bytes: etcd itself refuses what is larger than 1.5 MiB, unless it is told otherwise."""
LONGEST_TEXT = 253
"""Characters of a name in Kubernetes."""
_NOWHERE = tuple(
    ipaddress.ip_network(each)
    for each in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "::/96", "::ffff:0:0/96", "fe80::/10", "ff00::/8")
)
"""Networks without any address that machines of several clusters could reach each other by."""


class QuarantineError(ValueError):
    """Why a value is not used."""


def read_document(raw: bytes) -> Mapping[str, Any]:
    """An object, not too large."""
    if len(raw) > LARGEST_VALUE:
        raise QuarantineError(f"{len(raw)} bytes are more than {LARGEST_VALUE}")
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        words = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise QuarantineError(f"not JSON: {words:.120}") from None
    if not isinstance(document, dict):
        raise QuarantineError("not a JSON object")
    return document


def expect(document: Mapping[str, Any], field: str, wanted: Union[str, int]) -> None:
    """Refuse what is not what the value's place says."""
    value = document.get(field)
    if type(value) is not type(wanted) or value != wanted:
        raise QuarantineError(f"{field}: {value!r:.80} is not {wanted!r}, as its place says")


def read_mapping(document: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    """Go writes an empty map as null."""
    value = document.get(field)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise QuarantineError(f"{field}: {value!r:.80} is not an object")
    return value


def read_boolean(document: Mapping[str, Any], field: str) -> bool:
    """Go leaves out what is false."""
    value = document.get(field, False)
    if not isinstance(value, bool):
        raise QuarantineError(f"{field}: {value!r:.80} is not a boolean")
    return value


def read_integer(document: Mapping[str, Any], field: str, least: int, most: int) -> int:
    """Go leaves out what is 0."""
    value = document.get(field, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise QuarantineError(f"{field}: {value!r:.80} is not {least} to {most}")
    return value


def read_text(document: Mapping[str, Any], field: str) -> str:
    """Text that can be shown; Go leaves out what is empty."""
    value = document.get(field, "")
    if not isinstance(value, str) or len(value) > LONGEST_TEXT or not value.isprintable():
        raise QuarantineError(f"{field}: {value!r:.80} is not printable text of at most {LONGEST_TEXT} characters")
    return value


def write_document(document: Mapping[str, Any]) -> bytes:
    """As Go writes it: without blanks."""
    return json.dumps(document, separators=(",", ":")).encode()


def parse_text_address(raw: object, what: str) -> IPAddress:
    """An address, whatever may be there."""
    try:
        return ipaddress.ip_address(raw if isinstance(raw, str) else "")
    except ValueError:
        raise QuarantineError(f"{what}: {raw!r:.80} is not an address") from None


def read_address(raw: object, what: str, own: Sequence[IPNetwork] = ()) -> IPAddress:
    """An address that packets may go to."""
    address = parse_text_address(raw, what)
    check_address(address, what, own)
    return address


def check_address(address: IPAddress, what: str, own: Sequence[IPNetwork]) -> None:
    """Refuse an address that no packet may go to, or that is in networks `own` that only this cluster has."""
    try:
        parse_address(str(address))
    except RefusedError as error:
        raise QuarantineError(f"{what}: {error.message}") from None
    for network in own:
        if address.version == network.version and address in network:
            raise QuarantineError(f"{what}: {address} is in {network}, which is this cluster's own")


def read_mask(raw: object, bits: int, what: str) -> int:
    """The length of a prefix whose mask Go wrote, as base64 of its bytes."""
    try:
        mask = base64.b64decode(raw if isinstance(raw, str) else "", validate=True)
    except ValueError:
        mask = b""
    number = int.from_bytes(mask, "big")
    length = bin(number).count("1")
    if len(mask) * 8 != bits or number != (1 << bits) - (1 << (bits - length)):
        raise QuarantineError(f"{what}: {raw!r:.80} is not a mask of {bits} bits")
    return length


def dump_mask(length: int, bits: int) -> str:
    """As `read_mask` and Go read it."""
    return base64.b64encode(((1 << bits) - (1 << (bits - length))).to_bytes(bits // 8, "big")).decode()


def check_network(network: IPNetwork, what: str, own: Sequence[IPNetwork]) -> None:
    """Refuse a network that has addresses which no packet may go to, or which only this cluster has."""
    for other in (*_NOWHERE, *own):
        if network.version == other.version and network.overlaps(other):
            which = "which is this cluster's own" if other in own else "where no packet may go"
            raise QuarantineError(f"{what}: {network} overlaps {other}, {which}")
