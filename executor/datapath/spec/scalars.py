"""Parsers of single values. Each takes any JSON value and returns a typed one, or raises `RefusedError`."""

from __future__ import annotations

import ipaddress
import math
import re
from fractions import Fraction
from typing import Any, NamedTuple

from datapath.spec.errors import RefusedError, nearest_name
from datapath.state.model import IPAddress

_TRUE = frozenset({"true", "yes", "on", "1", "y", "t"})
_FALSE = frozenset({"false", "no", "off", "0", "n", "f"})
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_DURATION_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DEVICE = re.compile(r"(?!\.{1,2}$)[^\s/:]{1,15}")
# Exponents of more digits would only cost time.
_QUANTITY = re.compile(
    r"([+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40}))(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?[0-9]{1,2}))?"
)
_SUFFIXES = {
    **{letter: Fraction(1000) ** (power - 3) for power, letter in enumerate(("n", "u", "m", "", "k", *"MGTPE"))},
    **{f"{letter}i": Fraction(1024) ** power for power, letter in enumerate("KMGTPE", 1)},
}
PORTS = "1 to 65535"
DEVICE = "a device name of at most 15 characters"


class PortRange(NamedTuple):
    """Ports `first` to `last`, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


def parse_bool(raw: object) -> bool:
    """`true`, `"True"`, `"yes"`, `1`... alike: inventories and ConfigMaps spell booleans in every way."""
    if isinstance(raw, bool):
        return raw
    word = str(raw).strip().lower() if isinstance(raw, (str, int)) else ""
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise RefusedError("not a boolean", "true or false")


def parse_int(raw: object, minimum: int, maximum: int) -> int:
    """An integer, or text that is one, between the bounds (both included)."""
    allowed = f"{minimum} to {maximum}"
    if isinstance(raw, str) and _INTEGER.fullmatch(raw.strip()):
        raw = int(raw)
    if isinstance(raw, bool) or not isinstance(raw, int):
        raise RefusedError("not an integer", allowed)
    if not minimum <= raw <= maximum:
        raise RefusedError("out of range", allowed)
    return raw


def parse_port(raw: object) -> int:
    """A port number; 0 means "any" elsewhere and nothing here."""
    return parse_int(raw, 1, 65535)


def parse_text(raw: object) -> str:
    """Text on one line, without blanks around it; a number counts as its own text."""
    if isinstance(raw, bool) or not isinstance(raw, (str, int)):
        raise RefusedError("not text", "text")
    text = str(raw).strip()
    if not text.isprintable():
        raise RefusedError("contains control characters", "printable text on one line")
    return text


def parse_choice(raw: object, choices: tuple[str, ...]) -> str:
    """One of `choices`, in any case."""
    allowed = ", ".join(choices)
    word = raw.strip().lower() if isinstance(raw, str) else None
    for choice in choices:
        if word == choice.lower():
            return choice
    raise RefusedError(f"unknown value {raw!r:.80}", allowed, nearest_name(raw, choices))


def parse_presence(raw: object) -> bool:
    """`present` or `absent`."""
    return parse_choice(raw, ("present", "absent")) == "present"


def parse_list(raw: object) -> tuple[str, ...]:
    """A list of words: a JSON list, or text with commas or blanks between (both spellings are Cilium's)."""
    return tuple(dict.fromkeys(_words(raw)))


def _words(raw: object) -> list[str]:
    if isinstance(raw, str):
        words = raw.replace(",", " ").split()
    elif isinstance(raw, (list, tuple)):
        words = [parse_text(word) for word in raw]
    else:
        raise RefusedError("not a list", "a list, or words separated by commas or blanks")
    if not all(words):
        raise RefusedError("a list element is empty", "words")
    return words


def parse_duration(raw: object, minimum: float, maximum: float) -> float:
    """Seconds as a number, or text as Go writes durations (`500ms`, `1m30s`); the result is in seconds."""
    allowed = f"{render_duration(minimum)} to {render_duration(maximum)}"
    seconds = _seconds(raw)
    if seconds is None or not math.isfinite(seconds):
        raise RefusedError("not a duration", f"{allowed}; seconds, or text such as 500ms, 2s, 1m30s")
    if not minimum <= seconds <= maximum:
        raise RefusedError("out of range", allowed)
    return seconds


def _seconds(raw: object) -> float | None:
    if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
        return None
    if not isinstance(raw, str):
        return float(raw) if abs(raw) < 1e15 else None
    text = raw.strip()
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", text):
        return float(text)
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    # rounded to the nanosecond, Go's resolution: 500 * 0.001 is not the float that 0.5 is everywhere
    return round(sum(float(number) * _SECONDS[unit] for number, unit in parts), 9)


def render_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads back."""
    # Whole numbers, as a quotient of seconds is rarely exact.
    nanoseconds = round(seconds * 1e9)
    for unit in ("h", "m", "s", "ms", "us"):
        count, rest = divmod(nanoseconds, round(_SECONDS[unit] * 1e9))
        if count and not rest:
            return f"{count}{unit}"
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def parse_port_range(raw: object) -> PortRange:
    """Two ports, `1024-29999`, `1024,29999` or `[1024, 29999]`."""
    parts: list[Any]
    if isinstance(raw, str):
        parts = re.split(r"[-,:\s]+", raw.strip())
    else:
        parts = list(raw) if isinstance(raw, (list, tuple)) else []
    allowed = f"FIRST-LAST, both {PORTS}"
    if len(parts) != 2:
        raise RefusedError("not a port range", allowed)
    first, last = (parse_port(part) for part in parts)
    if first > last:
        raise RefusedError("the range's first port is larger than its last", allowed)
    return PortRange(first, last)


def parse_address(raw: object) -> IPAddress:
    """A unicast address that a packet can be sent to."""
    allowed = "an IPv4 or IPv6 unicast address"
    text = raw.strip() if isinstance(raw, str) else ""
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    try:
        # a zone (fe80::1%eth0) would be accepted by newer Pythons only, and means nothing on the wire
        address = ipaddress.ip_address(text if "%" not in text else "")
    except ValueError:
        raise RefusedError("not an IP address", allowed) from None
    broadcast = address == ipaddress.IPv4Address("255.255.255.255")
    if address.is_unspecified or address.is_multicast or address.is_loopback or broadcast:
        raise RefusedError(f"{address} cannot be used: it is no unicast address that other machines reach", allowed)
    if isinstance(address, ipaddress.IPv6Address) and (address.is_link_local or address.ipv4_mapped):
        raise RefusedError(f"{address} cannot be used: link-local and v4-mapped addresses are not routed", allowed)
    return address


def parse_addresses(raw: object) -> tuple[IPAddress, ...]:
    """Unicast addresses, in any of a list's spellings; each once."""
    found: list[IPAddress] = []
    for word in _words(raw):
        try:
            address = parse_address(word)
        except RefusedError as error:
            raise RefusedError(f"{word!r:.80}: {error.message}", error.allowed) from None
        if address in found:
            raise RefusedError(f"{address} is there twice", "each address once")
        found.append(address)
    return tuple(found)


def parse_quantity(raw: object) -> int:
    """A quantity as Kubernetes writes them (`50M`, `1Gi`, `1e7`, `1500m`), rounded up to a whole number, as there."""
    allowed = "a number, with k, M, G, T, P, E or Ki, Mi, Gi, Ti, Pi, Ei behind it, or an exponent as in 1e7"
    if isinstance(raw, bool) or not isinstance(raw, (str, int, float)):
        raise RefusedError("not a quantity", allowed)
    match = _QUANTITY.fullmatch(str(raw).strip())
    if match is None:
        raise RefusedError("not a quantity", allowed)
    number, suffix, exponent = match.groups()
    power = Fraction(10) ** int(exponent) if exponent else _SUFFIXES[suffix or ""]
    return math.ceil(Fraction(number) * power)


def render_bit_rate(bits: float) -> str:
    """1500000 -> 1.5 Mbit/s."""
    for unit in ("", "k", "M", "G", "T"):
        if bits < 1000 or unit == "T":
            break
        bits /= 1000
    return f"{bits:.4g} {unit}bit/s"


def parse_device(raw: object) -> str:
    """A name that the kernel lets a network device have (`dev_valid_name`)."""
    name = parse_text(raw)
    if not _DEVICE.fullmatch(name):
        raise RefusedError("not a device name", DEVICE)
    return name


def split_port(text: str) -> tuple[str, str]:
    """`ADDR:PORT` or `[v6]:PORT` to its halves; the port is "" where there is none.

    A bare IPv6 address is an address without a port: what follows its last colon cannot be told from one.
    """
    text = text.strip()
    if text.startswith("[") and "]" in text:
        host, _, rest = text[1:].partition("]")
        return host, rest[1:] if rest.startswith(":") else rest
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, port
    return text, ""


def parse_listen_address(raw: object) -> str:
    """`ADDR:PORT`, `[v6]:PORT` or `:PORT` (every address); "" is off."""
    text = parse_text(raw)
    if not text:
        return ""
    allowed = '":9962", "127.0.0.1:9962", "[::1]:9962", or "" for off'
    host, port = split_port(text)
    try:
        parse_port(port)
        if host:
            ipaddress.ip_address(host)
    except ValueError:
        raise RefusedError("not an address to listen on", allowed) from None
    return text
