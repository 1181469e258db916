"""What BBR asks of the kernel (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Optional

from datapath.compile.errors import Problems
from datapath.compile.layouts import BbrConfig
from datapath.state.facts import NodeFacts

_CONGESTION = "net.ipv4.tcp_congestion_control"
_IDLE = "net.ipv4.tcp_slow_start_after_idle"
SYSCTLS = (_CONGESTION, _IDLE)
_OPTION = "options.values.enable_bbr"
_HOST_OPTION = "options.values.enable_bbr_hostns_only"


def sysctls(options: Mapping[str, Any]) -> dict[str, str]:
    """Those that are set. BBR keeps what it knows of a path that was idle: slow start would find it out once more."""
    if not options["enable-bbr"]:
        return {}
    return {_IDLE: "0"} if options["enable-bbr-hostns-only"] else {_IDLE: "0", _CONGESTION: "bbr"}


def host_program(options: Mapping[str, Any], facts: NodeFacts, build_id: bytes, problems: Problems) -> Optional[bytes]:
    """Configuration of the program that gives BBR to the host's own sockets; None where there is to be none."""
    if not options["enable-bbr-hostns-only"]:
        return None
    # The executor itself may have set BBR for all, and now takes that back.
    default = facts.originals.get(_CONGESTION, facts.sysctls.get(_CONGESTION, ""))
    if default == "bbr":
        problems.warn(
            f"{_CONGESTION} of this host is bbr: network namespaces begin with it, so endpoints have BBR as well"
        )
    config = BbrConfig(netns_cookie=facts.netns_cookie)
    config.build_id[:] = build_id
    name = default.encode()
    config.congestion[: len(name)] = name
    return bytes(config)


def check(options: Mapping[str, Any], facts: NodeFacts, problems: Problems) -> None:
    """Refuse what this kernel cannot do."""
    if not options["enable-bbr"]:
        return
    for path, feature, message, allowed in _needs(options):
        if not facts.features.get(feature):
            problems.refuse(path, True, f"{message} (feature {feature})", allowed)


def _needs(options: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    yield (
        _OPTION,
        "tcp_bbr",
        "this kernel has no BBR",
        "false; or a kernel with CONFIG_TCP_CONG_BBR, such as a distribution's own",
    )
    if options["enable-bbr-hostns-only"]:
        yield (
            _HOST_OPTION,
            "sock_ops_netns",
            "on this kernel a program cannot tell the host's sockets from those of endpoints",
            "false; or a kernel from 5.15 on",
        )
    else:
        yield (
            _OPTION,
            "delivery_time",
            "this kernel forgets on the way from an endpoint to fq when a packet is to leave, by which BBR works",
            "false, or enable-bbr-hostns-only: true; or a kernel from 5.18 on",
        )
