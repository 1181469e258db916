"""Inventory variables that are no options, described once for specifications, sample and documentation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from datapath.generate.text import flow
from datapath.spec.manifests import ANNOTATIONS
from datapath.spec.option import Kind, Option

_ANSIBLE_TYPES = {
    Kind.BOOL: "bool",
    Kind.INT: "int",
    Kind.TEXT: "str",
    Kind.LIST: "list",
    Kind.ADDRESSES: "list",
    # text or numbers or lists: the executor's parser takes them all
    Kind.DURATION: "raw",
    Kind.PORT_RANGE: "raw",
    Kind.LISTEN_ADDRESS: "str",
}

EXECUTABLE = {
    "description": "Path of the executor's command on the node; role C(executor) sets it where it differs.",
    "type": "path",
}

CONFIG_EXTRA_VARS = {
    "description": [
        "Options by the key of Cilium's agent, applied last. Unknown keys are refused.",
        'Scalars in any spelling: C("true") and C(true) are the same.',
        "Inventories replace dictionaries and do not merge them, so the one nearest to the host counts alone.",
    ],
    "type": "dict",
    "default": {},
}

_FRONTENDS = {
    "description": [
        "Where clients connect to, such as C(192.0.2.10:80/TCP) or C([2001:db8::10]:53/UDP).",
        "Or a dictionary of C(address), C(port) and C(protocol) (TCP unless given).",
        "All frontends of a service are of one address family; a dual-stack service is two services.",
    ],
    "type": "list",
    "elements": "raw",
}

_BACKENDS = {
    "description": [
        "Where traffic goes to, such as C(10.0.1.11:8080) or C([2001:db8:1::11]:8080).",
        "Or a dictionary of C(address), C(port) (unless the address has it), C(weight) and C(state).",
        "They are of the frontends' address family, unless IP tunnels lead to them (C(bpf-lb-dsr-dispatch: ipip)).",
        "C(weight) is 0 to 65535, 100 unless given; 0 is the same as C(maintenance).",
        "C(state) is C(active), C(terminating), C(quarantined) or C(maintenance).",
        "New flows go to active backends, and to terminating ones only where no active one is left.",
        "Established flows stay where they are.",
    ],
    "type": "list",
    "elements": "raw",
}

_HEALTH_CHECK = {
    "description": "How every load balancer checks the backends. Without it all count as healthy.",
    "type": "dict",
    "options": {
        "type": {
            "description": "How a backend is asked.",
            "type": "str",
            "required": True,
            "choices": ["tcp", "http", "https"],
        },
        "interval": {
            "description": "Time between the starts of two checks of a backend, such as C(500ms). C(2s) unless given.",
            "type": "raw",
        },
        "timeout": {
            "description": "Time that an answer may take, at most the interval. C(1s) unless given.",
            "type": "raw",
        },
        "rise": {"description": "Successes in a row that make a backend healthy. 2 unless given.", "type": "int"},
        "fall": {"description": "Failures in a row that make it unhealthy. 3 unless given.", "type": "int"},
        "port": {"description": "Port that is checked. The backend's own unless given.", "type": "int"},
        "path": {"description": "Path that is asked for (C(http), C(https)). C(/) unless given.", "type": "str"},
        "host": {
            "description": "Host header and TLS server name (C(http), C(https)). The backend's address unless given.",
            "type": "str",
        },
        "status": {
            "description": "Status codes that count as healthy (C(http), C(https)). 200 unless given.",
            "type": "list",
            "elements": "int",
        },
        "verify_tls": {
            "description": "Whether the backend's certificate must be valid (C(https)). True unless given.",
            "type": "bool",
        },
        "all_failed": {
            "description": "What happens when no backend is healthy: C(closed) answers as a service without backends"
            " does, C(open) uses all of them. C(closed) unless given.",
            "type": "str",
            "choices": ["closed", "open"],
        },
    },
}

SERVICES: dict[str, Any] = {
    "description": [
        "The services that the load balancers offer. Not set, services are left as they are.",
    ],
    "type": "list",
    "elements": "dict",
    "options": {
        "name": {"description": "Name of the service.", "type": "str", "required": True},
        "state": {
            "description": "C(absent) removes the service.",
            "type": "str",
            "choices": ["present", "absent"],
            "default": "present",
        },
        "frontends": _FRONTENDS,
        "backends": _BACKENDS,
        "algorithm": {
            "description": "How a new flow chooses its backend. As option C(bpf-lb-algorithm) unless given.",
            "type": "str",
            "choices": ["random", "maglev"],
        },
        "mode": {
            "description": [
                "How requests reach the backends and replies the clients. As option C(bpf-lb-mode) unless given.",
                "Only with option C(bpf-lb-mode-annotation).",
            ],
            "type": "str",
            "choices": ["snat", "dsr"],
        },
        "health_check": _HEALTH_CHECK,
        "global": {
            "description": [
                "Whether backends that other clusters share for the service of this name serve it as well.",
                "Other clusters may use its own, unless C(shared) is false.",
                "Its name in the mesh is C(NAMESPACE/NAME), or C(NAME) in namespace C(default).",
            ],
            "type": "bool",
        },
        "affinity": {
            "description": [
                "Which backends of a global service are used, C(local) or C(remote) ones while there are healthy ones.",
                "C(none), all of them, unless given.",
            ],
            "type": "str",
            "choices": ["none", "local", "remote"],
        },
        "shared": {
            "description": "Whether other clusters may use the backends of a global service. True unless given.",
            "type": "bool",
        },
        "mesh_name": {
            "description": [
                "What a global service is called in the mesh, where that is not its name.",
                "Several services with the same one are the ports, or the address families, of one.",
            ],
            "type": "str",
        },
        "port_name": {
            "description": "What a global service's port is called in the mesh. Needed where C(mesh_name) has several.",
            "type": "str",
        },
    },
}

SERVICE_MANIFESTS = {
    "description": [
        "Manifests of Kubernetes that describe services: C(Service), C(EndpointSlice), or a C(List) of them.",
        "Each is a dictionary, or a file on the control node: a whole path, or one relative to the inventory.",
        "A Service is one service for each of its ports and address families, such as C(shop/web/http).",
        "What they say is used, or refused with its place; docs/services.md tells what that is.",
    ],
    "type": "list",
    "elements": "raw",
}

SERVICES_PURGE = {
    "description": "Whether services are removed that C(datapath_services) and the manifests do not have.",
    "type": "bool",
    "default": True,
}

_ANNOTATIONS = ", ".join(f"C({each})" for each in ANNOTATIONS)

ENDPOINTS: dict[str, Any] = {
    "description": [
        "Endpoints of the node: the host itself, and what is behind its devices, such as containers.",
        "Not set, they are left as they are.",
        "Each is in one place, C(interface), C(interfaces) or C(host).",
    ],
    "type": "list",
    "elements": "dict",
    "options": {
        "name": {
            "description": "Name of the endpoint, without a slash. That of the C(manifest) unless given.",
            "type": "str",
        },
        "state": {
            "description": "C(absent) removes the endpoint.",
            "type": "str",
            "choices": ["present", "absent"],
            "default": "present",
        },
        "manifest": {
            "description": [
                "The manifest of a Pod, as C(podman kube play) takes it.",
                f"What counts are its name, its labels and its annotations {_ANNOTATIONS}.",
                "A name and labels of the endpoint itself go before those of the manifest; rates must not differ.",
            ],
            "type": "dict",
        },
        "interface": {
            "description": [
                "The device on the host's side: of a container its veth, of a virtual machine its tap.",
                "While there is none, the endpoint is pending.",
            ],
            "type": "str",
        },
        "interfaces": {
            "description": [
                "A pattern of device names, such as C(ve-*).",
                "Each device that it matches is an endpoint C(NAME/DEVICE), unless an endpoint has it as C(interface).",
            ],
            "type": "str",
        },
        "host": {"description": "True for the host itself, which is one endpoint at most.", "type": "bool"},
        "labels": {"description": "Labels and their values, by the rules of Kubernetes.", "type": "dict"},
        "addresses": {
            "description": "IP addresses of the endpoint; not with C(interfaces). No two endpoints have the same.",
            "type": "list",
            "elements": "str",
        },
        "egress_bandwidth": {
            "description": [
                "Bits a second that it may send, of whole frames, as quantities of Kubernetes: C(50M), C(1Gi).",
                "With C(interfaces), each endpoint that is found has this rate. Only with C(enable-bandwidth-manager).",
            ],
            "type": "raw",
        },
        "ingress_bandwidth": {
            "description": [
                "Bits a second that it may receive, with bursts of 100 ms (at least 128 KiB); what is more is dropped.",
                "Not with C(host). Only with C(enable-bandwidth-manager).",
            ],
            "type": "raw",
        },
        "priority": {
            "description": [
                "Priority of the packets that it sends: C(guaranteed), C(burstable), C(besteffort), or 1 to 15.",
                "Only with C(enable-bandwidth-manager).",
            ],
            "type": "raw",
        },
    },
}

ENDPOINTS_PURGE = {
    "description": "Whether endpoints that C(datapath_endpoints) does not list are removed.",
    "type": "bool",
    "default": True,
}


def ansible_type(option: Option) -> dict[str, Any]:
    """`type`, and `elements` of a list, as Ansible's specifications name them."""
    kind: dict[str, Any] = {"type": _ANSIBLE_TYPES[option.kind]}
    if option.kind in (Kind.LIST, Kind.ADDRESSES):
        kind["elements"] = "str"
    return kind


def sentences(option: Option) -> list[str]:
    """The option's description, a sentence or two an element."""
    lines = [option.summary, option.effect]
    if option.kind is not Kind.BOOL:
        lines.append(f"Allowed: {option.allowed}.")
    default = option.render(option.default)
    lines.append(f"C({flow(default)}) unless given." if default not in ("", []) else "Empty unless given.")
    return lines


def option_variables(options: Iterable[Option]) -> dict[str, Any]:
    """Inventory variable of each option -> its row of an argument specification.

    No row has a default: what is not set is not passed on, so that the executor alone knows the defaults.
    """
    rows = {}
    for option in options:
        row: dict[str, Any] = {"description": [*sentences(option), f"Cilium's key is C({option.key})."]}
        row.update(ansible_type(option))
        if option.choices:
            row["choices"] = list(option.choices)
        rows[option.variable] = row
    return rows
