"""Parsing and dumping of services: frontends, backends, health checks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Optional

from datapath.spec import scalars
from datapath.spec.errors import RefusedError
from datapath.spec.fields import Fields, Violations
from datapath.spec.global_services import GLOBAL_FIELDS, dump_fields, parse_fields
from datapath.state.model import (
    Algorithm,
    AllFailed,
    Backend,
    BackendState,
    CheckType,
    Frontend,
    HealthCheck,
    IPAddress,
    Mode,
    Protocol,
    Service,
)

SERVICE_FIELDS = (
    "name",
    "state",
    "frontends",
    "backends",
    "algorithm",
    "mode",
    "health_check",
    "global",
    *GLOBAL_FIELDS,
)
FRONTEND_FIELDS = ("address", "port", "protocol")
BACKEND_FIELDS = ("address", "port", "weight", "state")
HTTP_FIELDS = ("path", "host", "status")
HEALTH_FIELDS = ("type", "interval", "timeout", "rise", "fall", "port", *HTTP_FIELDS, "verify_tls", "all_failed")
FRONTEND_FORM = "ADDRESS:PORT/PROTOCOL, as 192.0.2.10:80/TCP or [2001:db8::10]:80/TCP"
BACKEND_FORM = "ADDRESS:PORT, as 10.0.1.11:8080 or [2001:db8::11]:8080"
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,251}[A-Za-z0-9])?", re.ASCII)
_HTTP_PATH = re.compile(r"/[!-~]{0,2047}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9_.:\[\]-]{1,253}", re.ASCII)


@dataclass(frozen=True)
class ParsedService:
    """What one item of the document says."""

    path: str
    name: str
    present: bool
    frontends: tuple[tuple[str, Frontend], ...]
    """Path and value of the frontends that could be read, also where the service is refused for something else."""
    backends: tuple[tuple[str, Backend], ...]
    """The same of backends."""
    mode: Optional[Mode]
    service: Optional[Service]
    """None where something is refused."""


def parse_name(raw: Any) -> str:
    """A service's name; a slash allows Kubernetes' `namespace/name`."""
    name = scalars.parse_text(raw)
    if not _NAME.fullmatch(name):
        raise RefusedError("not a name", "letters, digits and . _ / - between them, at most 253 characters")
    return name


def parse_service(violations: Violations, path: str, raw: Any) -> Optional[ParsedService]:
    """Read one item; None where it has no usable name."""
    fields = Fields(violations, path, raw, SERVICE_FIELDS)
    name = fields.require("name", parse_name, "a name") if isinstance(raw, dict) else None
    present = fields.take_or("state", scalars.parse_presence, True)
    frontends = _frontends(fields, required=present)
    backends = _backends(fields)
    algorithm = fields.take("algorithm", lambda value: Algorithm[_word(value, ("random", "maglev"))])
    mode = fields.take("mode", lambda value: Mode(scalars.parse_choice(value, tuple(each.value for each in Mode))))
    check = _health_check(violations, fields.at("health_check"), fields.raw("health_check"))
    mesh = parse_fields(fields)
    _check_families(violations, frontends)
    if name is None:
        return None
    service = None
    if fields.sound:
        service = Service(
            name=name,
            frontends=tuple(frontend for _, frontend in frontends),
            backends=tuple(backend for _, backend in backends),
            algorithm=algorithm,
            mode=mode,
            health_check=check,
            is_global=mesh.is_global,
            affinity=mesh.affinity,
            shared=mesh.shared,
            mesh_name=mesh.mesh_name,
            port_name=mesh.port_name,
        )
    return ParsedService(path, name, present, tuple(frontends), tuple(backends), mode, service)


def _word(raw: Any, choices: tuple[str, ...]) -> str:
    """The enum member's name behind a lower-case word."""
    return scalars.parse_choice(raw, choices).upper()


def _protocol(raw: Any) -> Protocol:
    return Protocol[scalars.parse_choice(raw, ("TCP", "UDP"))]


def _frontends(fields: Fields, required: bool) -> list[tuple[str, Frontend]]:
    violations = fields.violations
    found: list[tuple[str, Frontend]] = []
    before = len(violations.errors)
    for path, raw in violations.items(fields.at("frontends"), fields.raw("frontends")):
        frontend = _frontend(violations, path, raw)
        if frontend is None:
            continue
        twin = next((other for other, known in found if known == frontend), None)
        if twin is not None:
            violations.add(path, raw, f"{frontend} is the same frontend as {twin}")
        found.append((path, frontend))
    if required and not found and len(violations.errors) == before:
        violations.add(fields.at("frontends"), fields.raw("frontends"), "a service needs a frontend", FRONTEND_FORM)
    return found


def _frontend(violations: Violations, path: str, raw: Any) -> Optional[Frontend]:
    if isinstance(raw, str):
        return violations.parse(path, raw, parse_frontend)
    if not isinstance(raw, dict):
        violations.add(path, raw, "not a frontend", FRONTEND_FORM)
        return None
    fields = Fields(violations, path, raw, FRONTEND_FIELDS)
    address = fields.require("address", scalars.parse_address, "an IPv4 or IPv6 unicast address")
    port = fields.require("port", scalars.parse_port, f"{scalars.PORTS}: a VIP without a port is no frontend")
    protocol = fields.take_or("protocol", _protocol, Protocol.TCP)
    if address is None or port is None or not fields.sound:
        return None
    return Frontend(address, port, protocol)


def parse_frontend(raw: str) -> Frontend:
    """A frontend as `FRONTEND_FORM`; TCP where no protocol is given. Raises RefusedError."""
    where, slash, protocol = raw.partition("/")
    host, port = scalars.split_port(where)
    address = scalars.parse_address(host)
    if not port:
        raise RefusedError("a VIP without a port is no frontend", FRONTEND_FORM)
    return Frontend(address, scalars.parse_port(port), _protocol(protocol) if slash else Protocol.TCP)


def _backends(fields: Fields) -> list[tuple[str, Backend]]:
    violations = fields.violations
    found: list[tuple[str, Backend]] = []
    paths: dict[tuple[Any, int], str] = {}
    for path, raw in violations.items(fields.at("backends"), fields.raw("backends")):
        backend = _backend(violations, path, raw)
        if backend is None:
            continue
        twin = paths.setdefault((backend.address, backend.port), path)
        if twin != path:
            violations.add(path, raw, f"{backend} is the same backend as {twin}")
        found.append((path, backend))
    return found


def _backend(violations: Violations, path: str, raw: Any) -> Optional[Backend]:
    if isinstance(raw, str):
        raw = {"address": raw}
        where = path
    elif isinstance(raw, dict):
        where = f"{path}.address"
    else:
        violations.add(path, raw, "not a backend", BACKEND_FORM)
        return None
    fields = Fields(violations, path, raw, BACKEND_FIELDS)
    if not isinstance(fields.raw("address"), str):
        violations.add(f"{path}.address", fields.raw("address"), "not an address", BACKEND_FORM)
        return None
    host, port_text = scalars.split_port(fields.raw("address"))
    address = violations.parse(where, host, scalars.parse_address)
    port = violations.parse(where, port_text, scalars.parse_port) if port_text else None
    own_port = fields.take("port", scalars.parse_port)
    if port_text and fields.given("port"):
        violations.add(fields.at("port"), fields.raw("port"), "the address has a port already")
    elif not port_text and not fields.given("port"):
        violations.add(where, fields.raw("address"), "a backend needs a port", BACKEND_FORM)
    weight = fields.take_or("weight", lambda value: scalars.parse_int(value, 0, 65535), 100)
    states = tuple(state.name.lower() for state in BackendState)
    state = fields.take_or("state", lambda value: BackendState[_word(value, states)], BackendState.ACTIVE)
    port = port or own_port
    if address is None or port is None or not fields.sound:
        return None
    return Backend(address, port, weight, state)


def _check_families(violations: Violations, frontends: list[tuple[str, Frontend]]) -> None:
    """All frontends are of the first one's family; what backends may be depends on options (`service_modes`)."""
    for path, frontend in frontends[1:]:
        first = frontends[0][1].address
        if frontend.address.version != first.version:
            violations.add(path, str(frontend.address), mixed_families(frontend.address, first), family_form(first))


def mixed_families(address: IPAddress, first: IPAddress) -> str:
    """Why a service cannot have both addresses."""
    return (
        f"mixed address families: {address} is IPv{address.version}, {first} is IPv{first.version};"
        " a dual-stack service is two services"
    )


def family_form(address: IPAddress) -> str:
    """The addresses that go with `address`, in words."""
    return f"IPv{address.version} addresses"


def _status(raw: Any) -> tuple[int, ...]:
    codes = raw if isinstance(raw, (list, tuple)) else str(raw).replace(",", " ").split()
    if isinstance(raw, bool) or not codes:
        raise RefusedError("no status code", "HTTP status codes, 100 to 599")
    return tuple(sorted({scalars.parse_int(code, 100, 599) for code in codes}))


def _matching(pattern: re.Pattern[str], message: str, allowed: str, raw: Any) -> str:
    text = scalars.parse_text(raw)
    if not pattern.fullmatch(text):
        raise RefusedError(message, allowed)
    return text


def _health_check(violations: Violations, path: str, raw: Any) -> Optional[HealthCheck]:
    if raw is None:
        return None
    fields = Fields(violations, path, raw, HEALTH_FIELDS)
    kinds = tuple(kind.value for kind in CheckType)
    kind = fields.require("type", lambda value: CheckType(scalars.parse_choice(value, kinds)), ", ".join(kinds))
    if kind is CheckType.TCP:
        fields.refuse_others(HTTP_FIELDS, "has no effect on a check of type tcp")
    if kind is not None and kind is not CheckType.HTTPS:
        fields.refuse_others(("verify_tls",), f"has no effect on a check of type {kind.value}")
    defaults = HealthCheck(kind or CheckType.TCP)
    interval = fields.take_or("interval", lambda value: scalars.parse_duration(value, 0.1, 3600), defaults.interval)
    timeout = fields.take_or(
        "timeout", lambda value: scalars.parse_duration(value, 0.01, 3600), min(defaults.timeout, interval)
    )
    if timeout > interval and fields.sound:
        violations.add(
            fields.at("timeout"), fields.raw("timeout"), "longer than the interval", f"at most {interval:g}s"
        )
    all_failed = tuple(each.value for each in AllFailed)
    host_form = "a host name or address, optionally with a port"
    return HealthCheck(
        type=defaults.type,
        interval=interval,
        timeout=timeout,
        rise=fields.take_or("rise", lambda value: scalars.parse_int(value, 1, 100), defaults.rise),
        fall=fields.take_or("fall", lambda value: scalars.parse_int(value, 1, 100), defaults.fall),
        port=fields.take("port", scalars.parse_port),
        path=fields.take_or(
            "path", lambda value: _matching(_HTTP_PATH, "not a path", "/ and printable ASCII", value), defaults.path
        ),
        host=fields.take("host", lambda value: _matching(_HOST, "not a host", host_form, value)),
        status=fields.take_or("status", _status, defaults.status),
        verify_tls=fields.take_or("verify_tls", scalars.parse_bool, defaults.verify_tls),
        all_failed=fields.take_or(
            "all_failed", lambda value: AllFailed(scalars.parse_choice(value, all_failed)), defaults.all_failed
        ),
    )


def dump_service(service: Service) -> dict[str, Any]:
    """The service as an item that `parse_service` reads back."""
    item: dict[str, Any] = {
        "name": service.name,
        "frontends": [str(frontend) for frontend in service.frontends],
        "backends": [
            {"address": str(backend), "weight": backend.weight, "state": backend.state.name.lower()}
            for backend in service.backends
        ],
    }
    if service.algorithm is not None:
        item["algorithm"] = service.algorithm.name.lower()
    if service.mode is not None:
        item["mode"] = service.mode.value
    if service.health_check is not None:
        item["health_check"] = _dump_health_check(service.health_check)
    item.update(dump_fields(service))
    return item


def _dump_health_check(check: HealthCheck) -> dict[str, Any]:
    item: dict[str, Any] = {
        "type": check.type.value,
        "interval": check.interval,
        "timeout": check.timeout,
        "rise": check.rise,
        "fall": check.fall,
        "all_failed": check.all_failed.value,
    }
    if check.port is not None:
        item["port"] = check.port
    if check.type is not CheckType.TCP:
        item.update(path=check.path, status=list(check.status))
        if check.host is not None:
            item["host"] = check.host
    if check.type is CheckType.HTTPS:
        item["verify_tls"] = check.verify_tls
    return item
