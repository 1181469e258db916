"""Parsing and dumping of the user's own programs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Optional

from datapath.spec import scalars
from datapath.spec.errors import RefusedError
from datapath.spec.fields import Fields, Violations
from datapath.state.model import Hook, Program

PROGRAM_FIELDS = ("name", "state", "object", "source", "program", "attach", "pin")
ATTACH_FIELDS = ("type", "device", "mode", "direction", "cgroup")
_USED: dict[Hook, tuple[str, ...]] = {
    Hook.NONE: ("type",),
    Hook.XDP: ("type", "device", "mode"),
    Hook.TC: ("type", "device", "direction"),
    Hook.CGROUP: ("type", "cgroup"),
}
# bpffs refuses names with a dot
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}", re.ASCII)
_FUNCTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
LONGEST_SOURCE = 256 * 1024
"""Bytes of C source; it is kept in the desired state and travels with it."""
SOURCE_HOOKS = (Hook.XDP, Hook.TC)
# bcc pins such maps while it compiles, so a dry run would as well.
_PINNED_MAP = re.compile(
    r"""
    \b BPF_\w*PINNED\w* | # BPF_TABLE_PINNED("hash", u32, u64, counts, 16, "/sys/fs/bpf/counts")
    \b _?BPF_XSKMAP3? \s* \( [^()"]* " | # BPF_XSKMAP(sockets, 4, "/sys/fs/bpf/sockets")
    "maps/\w+: # what both are made of
    """,
    re.ASCII | re.VERBOSE,
)


@dataclass(frozen=True)
class ParsedProgram:
    """What one item of the document says."""

    path: str
    name: str
    present: bool
    program: Optional[Program]
    """None where something is refused, or where only the name of an absent program is given."""


def _name(raw: Any) -> str:
    name = scalars.parse_text(raw)
    if not _NAME.fullmatch(name):
        raise RefusedError("not a name", "letters, digits, _ and -, at most 100 characters (it names a file on bpffs)")
    return name


def _path(raw: Any) -> str:
    text = scalars.parse_text(raw)
    path = PurePosixPath(text)
    if not path.is_absolute() or ".." in path.parts or len(text) > 4095:
        raise RefusedError("not an absolute path", "an absolute path on the node")
    return str(path)


def _pin(raw: Any) -> str:
    path = _path(raw)
    if "." in path:
        raise RefusedError("a bpffs path cannot contain a dot", "an absolute path on bpffs, without dots")
    return path


def _function(raw: Any) -> str:
    name = scalars.parse_text(raw)
    if not _FUNCTION.fullmatch(name):
        raise RefusedError("not a function's name", "the name of a program (C function) in the object or source")
    return name


def _source(raw: Any) -> str:
    if not isinstance(raw, str) or not raw.strip():
        raise RefusedError("not C source", "C text")
    try:
        size = len(raw.encode())
    except UnicodeEncodeError as error:
        raise RefusedError("not UTF-8", "C text") from error
    if "\0" in raw:
        raise RefusedError("contains a NUL", "C text")
    if size > LONGEST_SOURCE:
        raise RefusedError(f"{size} bytes are too long", f"at most {LONGEST_SOURCE} bytes; or an object")
    pinned = _PINNED_MAP.search(raw)
    if pinned is not None:
        where = f"line {raw.count(chr(10), 0, pinned.start()) + 1}"
        message = f"{where} pins a map ({pinned[0]}), which bcc would do in a dry run too"
        raise RefusedError(message, "maps without a pin; or an object")
    return raw


def _take_origin(fields: Fields, needed: bool) -> tuple[Optional[str], Optional[str]]:
    """(path of the object, source): one of them, or none where the program needs none or something is refused."""
    path, source = fields.take("object", _path), None
    if fields.given("source"):
        try:
            source = _source(fields.raw("source"))
        except RefusedError as error:
            # The text itself would bury what is said of it.
            fields.violations.refuse(fields.at("source"), None, error)
    if fields.given("object") and fields.given("source"):
        fields.violations.add(fields.at("source"), None, "object and source are both given", "one of them")
    elif needed and not fields.given("object") and not fields.given("source"):
        allowed = "path of the ELF object; or source, C text that is compiled on the node"
        fields.violations.add(fields.at("object"), None, "missing", allowed)
    return path, source


def _require_source_hook(fields: Fields, hook: Hook) -> None:
    if hook in SOURCE_HOOKS:
        return
    place = fields.at("attach.type" if fields.given("attach") else "attach")
    message = (
        "a source can be attached to XDP and tc only: bcc does not keep the name of a function's section, which would"
        " say what kind of program it is; compile an object instead"
    )
    fields.violations.add(place, hook.value, message, ", ".join(each.value for each in SOURCE_HOOKS))


def parse_program(violations: Violations, path: str, raw: Any) -> Optional[ParsedProgram]:
    """Read one item; None where it has no usable name."""
    fields = Fields(violations, path, raw, PROGRAM_FIELDS)
    name = fields.require("name", _name, "a name") if isinstance(raw, dict) else None
    present = fields.take_or("state", scalars.parse_presence, True)
    needed = present and isinstance(raw, dict)
    object_path, source = _take_origin(fields, needed)
    function = fields.take("program", _function)
    pin = fields.take("pin", _pin)
    attach = _attach(violations, fields.at("attach"), fields.raw("attach"))
    if name is None:
        return None
    if fields.sound and source is not None:
        _require_source_hook(fields, attach.get("hook", Hook.NONE))
    program = None
    if fields.sound and (object_path is not None or source is not None):
        program = Program(name, object_path or "", function=function, pin=pin, source=source, **attach)
    return ParsedProgram(path, name, present, program)


def _attach(violations: Violations, path: str, raw: Any) -> dict[str, Any]:
    """Keyword arguments of `Program` that say where it is attached."""
    if raw is None:
        return {}
    fields = Fields(violations, path, raw, ATTACH_FIELDS)
    hooks = tuple(hook.value for hook in Hook)
    hook = fields.require("type", lambda value: Hook(scalars.parse_choice(value, hooks)), ", ".join(hooks))
    if hook is None:
        return {}
    unused = [name for name in ATTACH_FIELDS if name not in _USED[hook]]
    fields.refuse_others(unused, f"has no effect with type {hook.value}")
    attach: dict[str, Any] = {"hook": hook}
    if "device" in _USED[hook]:
        attach["device"] = fields.require("device", scalars.parse_device, "a device name")
    if hook is Hook.XDP:
        attach["mode"] = fields.take_or("mode", lambda raw: scalars.parse_choice(raw, ("native", "generic")), "native")
    if hook is Hook.TC:
        directions = ("ingress", "egress")
        attach["direction"] = fields.take_or("direction", lambda raw: scalars.parse_choice(raw, directions), "ingress")
    if hook is Hook.CGROUP:
        attach["cgroup"] = fields.require("cgroup", _path, "path of a cgroup v2 directory")
    return attach


def dump_program(program: Program) -> dict[str, Any]:
    """The program as an item that `parse_program` reads back."""
    values = {
        "type": program.hook.value,
        "device": program.device,
        "mode": program.mode,
        "direction": program.direction,
        "cgroup": program.cgroup,
    }
    item: dict[str, Any] = {
        "name": program.name,
        **({"object": program.object_path} if program.source is None else {"source": program.source}),
        "attach": {name: values[name] for name in _USED[program.hook]},
    }
    if program.function is not None:
        item["program"] = program.function
    if program.pin is not None:
        item["pin"] = program.pin
    return item


def conflicts(programs: Iterable[Program]) -> list[tuple[Program, str]]:
    """Programs that claim a place that an earlier one has, each with what is wrong."""
    taken: dict[tuple[str, str], Program] = {}
    found = []
    for program in programs:
        places = []
        if program.pin is not None:
            places.append(("pin", program.pin))
        if program.hook is Hook.XDP and program.device is not None:
            places.append(("XDP program of device", program.device))
        for place in places:
            first = taken.setdefault(place, program)
            if first is not program:
                found.append((program, f"programs {first.name} and {program.name} both want {place[0]} {place[1]}"))
    return found
