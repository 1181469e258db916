"""The agent's JSON answers as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from datapath.cli.tables import BOLD, DIM, GREEN, RED, YELLOW, ago, count, duration, paint, percent, size, table
from datapath.spec.scalars import render_bit_rate

Document = Mapping[str, Any]

_SIGNS = {
    "create": ("+", GREEN),
    "attach": ("+", GREEN),
    "delete": ("-", RED),
    "detach": ("-", RED),
    "update": ("~", YELLOW),
    "replace": ("~", YELLOW),
    "set": ("~", YELLOW),
}


def status(document: Document) -> str:
    """`datapath status`, with every outcome where the document has them."""
    services, backends = document["services"], document["backends"]
    rows = [
        ("agent", f"version {document['version']}, up {duration(document['uptime'])}, pid {document['pid']}"),
        ("mode", document["mode"]),
        ("algorithm", f"{document['algorithm']}, table size {document['table_size']}"),
        ("acceleration", document["acceleration"]),
        ("devices", _devices(document["devices"])),
        *([("DSR backend", _dsr_backend(document["dsr_backend"]))] if document["dsr_backend"] else []),
        *([("bandwidth", _bandwidth(document["bandwidth"]))] if document["bandwidth"] else []),
        ("services", _healthy(services)),
        ("backends", _healthy(backends)),
        *([("endpoints", _present(document["endpoints"]))] if any((document["endpoints"] or {}).values()) else []),
        ("last apply", _last_apply(document["last_apply"])),
        (
            "drift",
            paint(f"{document['drift']} differences, see `datapath verify`", RED) if document["drift"] else "none",
        ),
        ("last error", _last_error(document["last_error"])),
    ]
    parts = ["\n".join(f"{paint(f'{name:<13}', BOLD)} {text}" for name, text in rows)]
    parts += [paint(f"problem: {problem}", YELLOW) for problem in document["problems"]]
    if any("driver" in device for device in document["devices"].values()):
        parts.append(_attached(document["devices"]))
    if document["maps"]:
        parts.append(_maps(document["maps"]))
    if "outcomes" in document:
        tables = ("outcomes", "node_outcomes", "bandwidth_outcomes")
        parts += [_outcomes(document[name]) for name in tables if document[name]]
    return "\n\n".join(parts)


def _dsr_backend(document: Document) -> str:
    problems = document["problems"]
    rows = [f"{name} ({paint(problems[name], RED)})" if name in problems else name for name in document["devices"]]
    return "answers clients itself on " + (", ".join(rows) or "no device")


def _bandwidth(document: Document) -> str:
    rates = (
        f"rates of {count(len(document['endpoints']))} devices, leaving by {', '.join(document['native']) or 'none'}"
    )
    problems = [paint(f"{name}: {what}", RED) for name, what in sorted(document["problems"].items())]
    return "; ".join([rates, *problems])


def services(document: Document) -> str:
    """`datapath service list`."""
    return "\n\n".join(_service(service) for service in document["services"]) or "no services"


def endpoints(document: Document) -> str:
    """`datapath endpoint list`."""
    # Only where the cluster publishes: numbers of a mesh tell nothing elsewhere.
    identities = any(each["identity"] for each in document["endpoints"])
    rows = [
        (
            each["name"],
            each["interface"] or "host",
            each["state"],
            each["number"] or "-",
            *([each["identity"] or "-"] if identities else []),
            ", ".join(each["addresses"]) or "-",
            ", ".join(f"{key}={value}" for key, value in each["labels"].items()) or "-",
        )
        for each in document["endpoints"]
    ]
    more = ["IDENTITY"] if identities else []
    header = ("ENDPOINT", "INTERFACE", "STATE", "NUMBER", *more, "ADDRESSES", "LABELS")
    return table(header, rows, right=range(3, 4 + len(more))) if rows else "no endpoints"


def bandwidth(document: Document) -> str:
    """`datapath bandwidth list`."""
    rows = [
        (
            each["endpoint"],
            each["direction"],
            render_bit_rate(each["bits_per_second"]) if each["bits_per_second"] else "unlimited",
            render_bit_rate(each["measured"]),
            each["priority"] or "-",
            count(each["passed_packets"]),
            count(each["dropped_packets"]),
            size(each["dropped_bytes"]),
        )
        for each in document["rates"]
    ]
    header = ("ENDPOINT", "DIRECTION", "RATE", "MEASURED", "PRIORITY", "PACKETS", "DROPPED", "BYTES")
    return table(header, rows, right=(2, 3, 4, 5, 6, 7)) if rows else "no rates"


def maglev(document: Document) -> str:
    """`datapath maglev`."""
    total = document["table_size"]
    head = f"{document['frontend']}  service {document['service']}, {document['algorithm']}, table size {total}"
    rows = [
        (share["backend"], share["weight"], share["state"], count(share["slots"]), percent(share["slots"], total))
        for share in document["shares"]
    ]
    text = head + "\n" + table(("BACKEND", "WEIGHT", "STATE", "SLOTS", "SHARE"), rows, right=(1, 3, 4))
    if "slots" in document:
        text += "\n\n" + table(("SLOT", "BACKEND"), list(enumerate(document["slots"])), right=(0,))
    return text


def flows(document: Document) -> str:
    """`datapath ct list`."""
    rows = [
        (
            flow["protocol"],
            flow["client"],
            flow["frontend"],
            flow["snat"],
            flow["backend"],
            flow["service"],
            _age(flow["idle"]),
        )
        for flow in document["flows"]
    ]
    text = table(("PROTO", "CLIENT", "FRONTEND", "SNAT", "BACKEND", "SERVICE", "IDLE"), rows, right=(6,))
    if document["truncated"]:
        text += "\n" + paint(f"the first {len(rows)} flows; --limit 0 shows all", DIM)
    return text


def report(document: Document) -> str:
    """`datapath apply` and `datapath plan`."""
    if not document["changed"]:
        lines = ["nothing to change" if document["check"] else "nothing changed"]
    else:
        lines = operations(document["operations"], document["operation_count"])
        lines.append("")
        verb = "would be made" if document["check"] else f"made, {count(document['map_writes'])} map writes"
        lines.append(f"{count(document['operation_count'])} changes {verb}")
    lines += disruption(document["disruption"])
    lines += [paint(f"warning: {warning}", YELLOW) for warning in document["warnings"]]
    return "\n".join(lines)


def operations(rows: Sequence[Document], total: int) -> list[str]:
    """One line an operation, signed as a diff is."""
    lines = []
    for row in rows:
        sign, colour = _SIGNS.get(row["action"], ("~", YELLOW))
        lines.append(f"{paint(sign, colour)} {row['summary']}")
    if total > len(rows):
        lines.append(paint(f"  and {count(total - len(rows))} more", DIM))
    return lines


def disruption(document: Document) -> list[str]:
    """What clients would notice."""
    moved, affected = document.get("slots_moved", {}), document.get("flows_affected", {})
    lines = [
        f"disruption: {name}: {percent(moved.get(name, 0), 1)} of the table moves,"
        f" {count(affected.get(name, 0))} established flows affected"
        for name in sorted({*moved, *affected})
        if moved.get(name) or affected.get(name)
    ]
    return lines + [f"note: {note}" for note in document.get("notes", ())]


def drift(document: Document) -> str:
    """`datapath verify`."""
    others = [f"{device}: {what}" for device, what in sorted(document["foreign"].items())] + document["unusable"]
    lines = operations(document["drift"], document["drift_count"] - len(others))
    lines += [f"{paint('!', RED)} {other}" for other in others]
    if document["drift_count"]:
        lines.append("")
        lines.append(
            paint(f"{count(document['drift_count'])} differences; an apply or a reload of the agent heals them", RED)
        )
    else:
        lines.append("the kernel holds what is desired")
    lines += [paint(f"problem: {problem}", YELLOW) for problem in document["problems"]]
    return "\n".join(lines)


def info(document: Document) -> str:
    """`datapath info`."""
    features = document["features"]
    present = ", ".join(name for name, has in sorted(features.items()) if has) or "none"
    absent = ", ".join(name for name, has in sorted(features.items()) if not has) or "none"
    head = f"datapath {document['version']} on Linux {document['kernel']}, {document['cpus']} CPUs"
    parts = [f"{head}\nfeatures: {present}\nmissing:  {absent}", _device_table(document["devices"])]
    if document["maps"]:
        parts.append(_maps(document["maps"]))
    if document["programs"]:
        rows = [
            (each["name"], each["hook"], each["where"] or "-", each["tag"], _origin(each))
            for each in document["programs"]
        ]
        parts.append(table(("PROGRAM", "HOOK", "WHERE", "TAG", "FROM"), rows))
    return "\n\n".join(parts)


def _origin(program: Document) -> str:
    """What a user's program was loaded from."""
    source = program["source"]
    return program["object"] or "-" if source is None else f"C source, {len(source.splitlines())} lines"


def reset(document: Document) -> str:
    """`datapath reset`."""
    return "\n".join(document["removed"]) if document["changed"] else "there was nothing to remove"


def _device_table(devices: Mapping[str, Document]) -> str:
    rows = [
        (
            name,
            device["driver"] or "-",
            "up" if device["up"] else "down",
            device["mtu"],
            _native(device),
            ", ".join(device["addresses"]) or "-",
        )
        for name, device in sorted(devices.items())
    ]
    return table(("DEVICE", "DRIVER", "LINK", "MTU", "XDP", "ADDRESSES"), rows, right=(3,))


def _native(device: Document) -> str:
    """Whether a device has native XDP, why not, and what to do."""
    if device["native_xdp"] is not False:
        return "native" if device["native_xdp"] else "not probed"
    remedy = device["native_xdp_remedy"]
    return f"generic only: {device['native_xdp_reason']}" + (f" -> {remedy}" if remedy else "")


def _attached(devices: Mapping[str, Document]) -> str:
    rows = [
        (name, device["driver"] or "-", device["mode"] or "-", _native(device))
        for name, device in sorted(devices.items())
        if "driver" in device
    ]
    return table(("DEVICE", "DRIVER", "ATTACHED", "DRIVER'S XDP"), rows)


def _devices(devices: Mapping[str, Document]) -> str:
    if not devices:
        return paint("not attached anywhere", YELLOW)
    return ", ".join(
        f"{name} ({device['mode'] or 'not attached'})"
        + (paint(f" {device['problem']}", RED) if device["problem"] else "")
        for name, device in sorted(devices.items())
    )


def _healthy(numbers: Document) -> str:
    text = f"{numbers['healthy']} of {numbers['total']} healthy"
    return text if numbers["healthy"] == numbers["total"] else paint(text, RED if not numbers["healthy"] else YELLOW)


def _present(numbers: Document) -> str:
    pending = numbers["total"] - numbers["present"]
    text = f"{numbers['present']} of {numbers['total']} present"
    return paint(text, YELLOW) if pending else text


def _age(seconds: Any) -> str:
    return "-" if seconds is None else duration(seconds)


def _last_apply(apply: Any) -> str:
    if apply is None:
        return "none since start"
    return (
        f"{ago(apply['when'])}, {count(apply['operations'])} operations, {count(apply['map_writes'])} map writes,"
        f" {apply['seconds']:.2f} s"
    )


def _last_error(error: Any) -> str:
    if error is None:
        return "none"
    first = error["errors"][0]
    place = first.get("path") or first.get("document")
    return paint(f"{ago(error['when'])}, {error['what']}: {place}: {first['message']}", RED)


def _maps(maps: Sequence[Document]) -> str:
    rows = [
        (each["name"], "-" if each["entries"] is None else count(each["entries"]), count(each["size"]), _fill(each))
        for each in maps
    ]
    return table(("MAP", "ENTRIES", "SIZE", "FILL"), rows, right=(1, 2, 3))


def _fill(each: Document) -> str:
    return "-" if each["entries"] is None else percent(each["entries"], each["size"])


def _outcomes(outcomes: Sequence[Document]) -> str:
    rows = [
        (each["name"], each["verdict"], count(each["packets"]), size(each["bytes"]), each["sentence"])
        for each in outcomes
    ]
    return table(("OUTCOME", "VERDICT", "PACKETS", "BYTES", "MEANING"), rows, right=(2, 3))


def _service(service: Document) -> str:
    traffic = ", ".join(
        f"{name} {count(numbers['packets'])} packets {size(numbers['bytes'])}"
        for name, numbers in sorted(service["traffic"].items())
    )
    head = f"{paint(service['name'], BOLD)}  {', '.join(service['frontends'])}"
    facts = [service["algorithm"], f"health check {service['health_check'] or 'none'}"]
    if service["mode"] not in (None, "snat"):
        facts.insert(1, service["mode"].upper())
    facts += [traffic] if traffic else []
    columns: list[tuple[str, list[Any]]] = [
        ("  BACKEND", [f"  {backend['backend']}" for backend in service["backends"]]),
        ("CLUSTER", [backend["cluster"] or "-" for backend in service["backends"]]),
        ("WEIGHT", [backend["weight"] for backend in service["backends"]]),
        ("STATE", [backend["state"] for backend in service["backends"]]),
        ("HEALTH", [backend["health"] for backend in service["backends"]]),
        ("PACKETS", [count(backend["packets"]) for backend in service["backends"]]),
        ("BYTES", [size(backend["bytes"]) for backend in service["backends"]]),
        ("", [backend["reason"] or "" for backend in service["backends"]]),
    ]
    if not any(backend["cluster"] for backend in service["backends"]):
        del columns[1]
    header = [name for name, _ in columns]
    right = [header.index(name) for name in ("WEIGHT", "PACKETS", "BYTES")]
    rows = list(zip(*(cells for _, cells in columns)))
    body = table(header, rows, right=right) if rows else paint("  no backends", YELLOW)
    return f"{head}\n  {'; '.join(facts)}\n{body}"
