"""Conditions on the values of single options (`RefusedError` where broken), with Cilium's messages where it has one."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable

from datapath.spec.errors import RefusedError
from datapath.spec.scalars import PortRange

TABLE_SIZES = (251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071)
"""Maglev table sizes that Cilium allows; all are prime."""
DEFAULT_SEED = "JLfvgnHc2kaSUFaI"
MAP_LIMIT = 1 << 24
"""Largest map size that Cilium accepts."""
SEED_FORM = "12 bytes in base64 (head -c12 /dev/urandom | base64 -w0)"
DEVICE_FORM = "a device name of at most 15 characters"
DEVICES_FORM = "device names of at most 15 characters; a + at the end matches every device that starts so"
PORTS_FORM = "FIRST-LAST, at least 1024 ports and none of them below 1024"
_DEVICE_NAME = re.compile(r"[^\s/:+]{1,15}|[^\s/:+]{0,14}\+")


def table_size(size: int) -> None:
    """One of Cilium's table sizes."""
    if size not in TABLE_SIZES:
        supported = " ".join(str(each) for each in TABLE_SIZES)
        nearest = min(TABLE_SIZES, key=lambda each: abs(each - size))
        raise RefusedError(
            f"Invalid value for --bpf-lb-maglev-table-size: {size}, supported values are: [{supported}]",
            ", ".join(str(each) for each in TABLE_SIZES),
            str(nearest),
        )


def decode_seed(seed: str) -> bytes:
    """The 12 bytes of a Maglev hash seed; raises `RefusedError`."""
    try:
        decoded = base64.b64decode(seed.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        message = f'cannot decode base64 Maglev hash seed "{seed}": {error}'
        raise RefusedError(message, SEED_FORM) from None
    if len(decoded) != 12:
        message = f"decoded hash seed is {len(decoded)} bytes (not 12 bytes)"
        raise RefusedError(message, SEED_FORM)
    return decoded


def seed(seed: str) -> None:
    """12 bytes in base64."""
    decode_seed(seed)


def device(name: str) -> None:
    """Empty, or the name of one device."""
    if name and (not _DEVICE_NAME.fullmatch(name) or name.endswith("+")):
        raise RefusedError(f"{name!r:.40} cannot be a device name", DEVICE_FORM)


def devices(names: tuple[str, ...]) -> None:
    """Names of devices, or wildcards."""
    for name in names:
        if not _DEVICE_NAME.fullmatch(name):
            raise RefusedError(f"{name!r:.40} cannot be a device name", DEVICES_FORM)


def port_range(ports: PortRange) -> None:
    """Ports enough for NAT, and none that services use."""
    if ports.first < 1024 or ports.last - ports.first + 1 < 1024:
        raise RefusedError("the range is too small, or takes ports that belong to services", PORTS_FORM)


def cidr_form(version: int) -> str:
    """What `cidr` allows, in words."""
    return f"an IPv{version} network as its base address and prefix length"


def cidr(version: int) -> Callable[[str], None]:
    """A condition: empty, or a network of that family whose address is its base."""

    def check(text: str) -> None:
        if not text:
            return
        try:
            interface = ipaddress.ip_interface(text)
        except ValueError:
            raise RefusedError("not a network", cidr_form(version)) from None
        if interface.version != version or "/" not in text:
            raise RefusedError(f"not an IPv{version} network with its prefix length", cidr_form(version))
        network = interface.network
        if network.is_multicast or network.is_unspecified or network.is_loopback:
            raise RefusedError("no addresses that packets could come from", cidr_form(version))
        if interface.ip != network.network_address:
            message = f"{interface.ip} is not the base address of its network"
            raise RefusedError(message, cidr_form(version), str(network))

    return check
