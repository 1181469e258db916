"""The desired-state document: merged into what the node has, and dumped for storage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Optional, TypeVar, Union

from datapath.spec import clustermesh as mesh_spec
from datapath.spec import endpoints as endpoint_spec
from datapath.spec import global_services, service_manifests, service_modes
from datapath.spec import programs as program_spec
from datapath.spec import services as service_spec
from datapath.spec import store as store_spec
from datapath.spec.errors import SpecError, SpecErrors
from datapath.spec.fields import Fields, Violations
from datapath.spec.option import Option
from datapath.spec.options import BY_KEY, BY_PARAM, REGISTRY, RULES, effective, unknown_option
from datapath.spec.scalars import parse_bool
from datapath.state.model import DesiredState, Endpoint, Frontend, Options, OwnStore, Peer, Program, Service

ITEM_SECTIONS = ("services", "programs", "endpoints", "clustermesh")
SECTIONS = ("options", *ITEM_SECTIONS)
_Parsed = Union[
    service_spec.ParsedService, program_spec.ParsedProgram, endpoint_spec.ParsedEndpoint, mesh_spec.ParsedPeer
]
T = TypeVar("T", bound=_Parsed)
S = TypeVar("S", Service, Program, Endpoint, Peer)


def merge(current: DesiredState, document: object) -> DesiredState:
    """`current` with `document` applied to it.

    `options` states the whole option set, or with `merge` those that it names. The other sections merge by name, and
    replace all with `purge`, the store of `clustermesh` included. One that is not given stays as it is. Raises
    `SpecErrors` with every violation; nothing else.
    """
    whole = Violations("document")
    sections = Fields(whole, "document", document, SECTIONS)
    options, option_errors = _merge_options(current.options, sections.raw("options"))
    services, service_errors = _merge_services(current.services, sections.raw("services"), options)
    programs, program_errors = _merge_programs(current.programs, sections.raw("programs"))
    endpoints, endpoint_errors = _merge_endpoints(current.endpoints, sections.raw("endpoints"), options)
    peers, store, mesh_errors = _merge_mesh(current, sections.raw("clustermesh"), options)
    errors = [*whole.errors, *option_errors, *service_errors, *program_errors, *endpoint_errors, *mesh_errors]
    if errors:
        raise SpecErrors(errors)
    return DesiredState(options, services, programs, endpoints, peers, store)


def located(errors: Iterable[SpecError], document: object) -> list[SpecError]:
    """`errors` of later stages, which know items by name, with the item's place in `document` where that has it."""
    places = {
        f"{section}.{name}": f"{section}.items[{index}]"
        for section in ITEM_SECTIONS
        for index, name in enumerate(item_names(document, section))
    }
    places.update({f"services.{each.name}": each.path for each in _manifest_services(Violations("services"), document)})

    def place(path: str) -> str:
        # names may have dots: of two that fit, the longer one is meant
        fits = [name for name in places if path == name or path.startswith(f"{name}.")]
        name = max(fits, key=len, default="")
        return places[name] + path[len(name) :] if name else path

    return [replace(error, path=place(error.path)) for error in errors]


def item_names(document: object, section: str) -> list[str]:
    """Names of the items in a section of a document that `merge` takes."""
    given = document.get(section) if isinstance(document, Mapping) else None
    name_of = endpoint_spec.item_name if section == "endpoints" else _item_name
    return [name_of(item) for item in (given or {}).get("items") or ()]


def _item_name(item: Mapping[str, Any]) -> str:
    return str(item["name"])


def _manifest_services(violations: Violations, document: object) -> list[service_spec.ParsedService]:
    """What the manifests in a document describe."""
    section = document.get("services") if isinstance(document, Mapping) else None
    manifests = section.get("manifests") if isinstance(section, Mapping) else None
    return service_manifests.read(violations, "services.manifests", manifests)


def load(document: object) -> DesiredState:
    """The desired state that `dump` wrote; raises `SpecErrors`."""
    return merge(DesiredState(), document)


def dump(state: DesiredState) -> dict[str, Any]:
    """`state` as a full document: merging it into anything gives `state`."""
    config = {key: BY_KEY[key].render(value) for key, value in sorted(state.options.items())}
    return {
        "options": {"values": {}, "config": config},
        "services": {"items": [service_spec.dump_service(each) for each in state.services], "purge": True},
        "programs": {"items": [program_spec.dump_program(each) for each in state.programs], "purge": True},
        "endpoints": {"items": [endpoint_spec.dump_endpoint(each) for each in state.endpoints], "purge": True},
        "clustermesh": {
            "store": None if state.store is None else store_spec.dump_store(state.store),
            "items": [mesh_spec.dump_peer(each) for each in state.peers],
            "purge": True,
        },
    }


def _merge_options(current: Options, raw: Any) -> tuple[Options, list[SpecError]]:
    if raw is None:
        return current, []
    violations = Violations("options")
    section = Fields(violations, "options", raw, ("values", "config", "merge"))
    options: dict[str, Any] = dict(current) if section.take_or("merge", parse_bool, False) else {}
    for path, name, raw_value in _named_values(violations, section, "values"):
        if raw_value is None and name in BY_PARAM:
            # As if it had never been set: with `merge`, back to its default.
            options.pop(BY_PARAM[name].key, None)
        options.update(_option(violations, path, name, raw_value, BY_PARAM))
    # second, so that the escape hatch is applied last
    for path, name, raw_value in _named_values(violations, section, "config"):
        if raw_value is None and name in BY_KEY:
            violations.add(path, raw_value, "has no value", BY_KEY[name].allowed)
        else:
            options.update(_option(violations, path, name, raw_value, BY_KEY))
    values = effective(options)
    for rule in RULES:
        if rule.broken(values):
            violations.add("options", {key: values[key] for key in rule.keys}, rule.message, rule.allowed)
    ordered = {option.key: options[option.key] for option in REGISTRY if option.key in options}
    return MappingProxyType(ordered), violations.errors


def _named_values(violations: Violations, section: Fields, name: str) -> Iterator[tuple[str, Any, Any]]:
    """Path, name and value of each option in `values` or `config`."""
    given = section.raw(name)
    if given is None:
        return
    if not isinstance(given, Mapping):
        violations.add(section.at(name), given, "not a mapping", "a mapping of option names to values")
        return
    for key, value in given.items():
        yield f"{section.at(name)}.{key}", key, value


def _option(violations: Violations, path: str, name: Any, raw: Any, known: Mapping[str, Option]) -> dict[str, Any]:
    """The option's key and typed value; empty where it is refused or has no value."""
    option = known.get(name)
    if option is None:
        violations.refuse(path, raw, unknown_option(name, "param" if known is BY_PARAM else "key"))
        return {}
    typed = None if raw is None else violations.parse(path, raw, option.parse)
    return {} if typed is None else {option.key: typed}


def _merge_services(
    current: tuple[Service, ...], raw: Any, options: Options
) -> tuple[tuple[Service, ...], list[SpecError]]:
    violations, kept, parsed = _section("services", current, raw, service_spec.parse_service, "manifests")
    for each in _manifest_services(violations, {"services": raw}):
        first = parsed.setdefault(each.name, each)
        if first is not each:
            violations.add(f"{each.path}.name", each.name, f"{first.path} has the same name")
        kept.pop(each.name, None)
    _check_frontends(violations, list(kept.values()), list(parsed.values()))
    _check_enabled(violations, kept, parsed, options)
    _check_modes(violations, kept, parsed, options)
    items = [(f"services.{each.name}", each) for each in kept.values()]
    items += [(each.path, each.service) for each in parsed.values() if each.present and each.service is not None]
    global_services.check(violations, items, effective(options))
    fresh = {each.name: each.service for each in parsed.values() if each.present and each.service is not None}
    return _sorted({**kept, **fresh}), violations.errors


def _check_frontends(violations: Violations, kept: list[Service], parsed: list[service_spec.ParsedService]) -> None:
    """No two services have one frontend."""
    owners: dict[Frontend, str] = {frontend: each.name for each in kept for frontend in each.frontends}
    for item in parsed:
        for path, frontend in item.frontends if item.present else ():
            owner = owners.setdefault(frontend, item.name)
            if owner != item.name:
                violations.add(path, str(frontend), f"services {owner} and {item.name} both have frontend {frontend}")


def _check_enabled(
    violations: Violations,
    kept: Mapping[str, Service],
    parsed: Mapping[str, service_spec.ParsedService],
    options: Options,
) -> None:
    """No service is of a family that the options switch off."""
    values = effective(options)
    places = [(f"services.{each.name}.frontends[0]", each.frontends[0]) for each in kept.values()]
    places += [each.frontends[0] for each in parsed.values() if each.present and each.frontends]
    for path, frontend in places:
        key = f"enable-ipv{frontend.address.version}"
        if not values[key]:
            violations.add(path, str(frontend), f"{key} is false, so this service would never be served")


def _check_modes(
    violations: Violations,
    kept: Mapping[str, Service],
    parsed: Mapping[str, service_spec.ParsedService],
    options: Options,
) -> None:
    """Services choose only a mode that they may, and have backends that their mode can reach."""
    checker = service_modes.Checker(violations, effective(options))
    for service in kept.values():
        path = f"services.{service.name}"
        frontends = [(f"{path}.frontends[{index}]", each) for index, each in enumerate(service.frontends)]
        backends = [(f"{path}.backends[{index}]", each) for index, each in enumerate(service.backends)]
        checker.check(path, service.mode, frontends, backends)
    for item in parsed.values():
        if item.present:
            checker.check(item.path, item.mode, item.frontends, item.backends)


def _merge_mesh(
    current: DesiredState, raw: Any, options: Options
) -> tuple[tuple[Peer, ...], Optional[OwnStore], list[SpecError]]:
    violations, kept, parsed = _section("clustermesh", current.peers, raw, mesh_spec.parse_peer, "store")
    store = store_spec.merge(violations, "clustermesh", current.store, raw, effective(options))
    fresh = {each.name: each.peer for each in parsed.values() if each.present and each.peer is not None}
    merged = {**kept, **fresh}
    for peer, message, allowed in mesh_spec.problems(merged.values(), effective(options)):
        item = parsed.get(peer.name)
        path = item.path if item is not None else f"clustermesh.{peer.name}"
        violations.add(f"{path}.name", peer.name, message, allowed)
    return _sorted(merged), store, violations.errors


def _merge_programs(current: tuple[Program, ...], raw: Any) -> tuple[tuple[Program, ...], list[SpecError]]:
    violations, kept, parsed = _section("programs", current, raw, program_spec.parse_program)
    fresh = {each.name: each.program for each in parsed.values() if each.present and each.program is not None}
    merged = {**kept, **fresh}
    for clash, message in program_spec.conflicts(merged.values()):
        violations.add(_path_of(parsed.get(clash.name), violations), clash.name, message)
    return _sorted(merged), violations.errors


def _merge_endpoints(
    current: tuple[Endpoint, ...], raw: Any, options: Options
) -> tuple[tuple[Endpoint, ...], list[SpecError]]:
    violations, kept, parsed = _section("endpoints", current, raw, endpoint_spec.parse_endpoint)
    fresh = {each.name: each.endpoint for each in parsed.values() if each.present and each.endpoint is not None}
    merged = {**kept, **fresh}
    # Those that were there are first, so that the place told is in the document.
    for clash, message in endpoint_spec.conflicts(merged.values()):
        violations.add(_path_of(parsed.get(clash.name), violations), clash.name, message)
    if not effective(options)["enable-bandwidth-manager"]:
        for endpoint in merged.values():
            item = parsed.get(endpoint.name)
            for name in endpoint_spec.without_manager(endpoint):
                path = item.places[name] if item is not None else f"endpoints.{endpoint.name}.{name}"
                message = "enable-bandwidth-manager is false, so this would never have an effect"
                violations.add(path, getattr(endpoint, name), message, "enable-bandwidth-manager: true")
    return _sorted(merged), violations.errors


def _section(
    name: str, current: Iterable[S], raw: Any, parse: Callable[[Violations, str, Any], Optional[T]], *more: str
) -> tuple[Violations, dict[str, S], dict[str, T]]:
    """A section of items: what is found wrong, what of `current` stays, and what the document says, by name.

    `more` are keys beside the items.
    """
    violations = Violations(name)
    parsed, purge = ({}, False) if raw is None else _read_items(violations, raw, parse, more)
    kept = {} if purge else {each.name: each for each in current if each.name not in parsed}
    return violations, kept, parsed


def _sorted(items: Mapping[str, S]) -> tuple[S, ...]:
    return tuple(items[name] for name in sorted(items))


def _read_items(
    violations: Violations, raw: Any, parse: Callable[[Violations, str, Any], Optional[T]], more: Sequence[str]
) -> tuple[dict[str, T], bool]:
    """The items of a section by name, and whether it replaces all."""
    name = violations.document
    section = Fields(violations, name, raw, ("items", "purge", *more))
    purge = section.take_or("purge", parse_bool, False)
    parsed: dict[str, T] = {}
    for path, item in violations.items(f"{name}.items", section.raw("items")):
        each = parse(violations, path, item)
        if each is None:
            continue
        first = parsed.setdefault(each.name, each)
        if first is not each:
            violations.add(f"{path}.name", each.name, f"{first.path} has the same name")
    return parsed, purge


def _path_of(item: Optional[_Parsed], violations: Violations) -> str:
    return item.path if item is not None else violations.document
