#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

DOCUMENTATION = r"""
module: service
short_description: Manage services of the load balancer
version_added: 0.1.0
description:
  - A service is a set of frontends (virtual addresses with port and protocol) and the backends that share their
    traffic.
  - Manages one service by its own options, or several by O(services). The others stay as they are, unless O(purge)
    is true.
  - All frontends of a service are of one address family. A dual-stack service is two services.
  - Backends are of the same family, unless packets go to them in IP tunnels, with direct server return.
  - The executor on the node checks the values. All violations are told at once and nothing is changed then.
extends_documentation_fragment:
  - ebpf.datapath.executor
  - ebpf.datapath.executor.apply
  - ebpf.datapath.executor.attributes
  - ebpf.datapath.executor.diff
options:
  name:
    description: Name of the service.
    type: str
  state:
    description: V(present) replaces the service as a whole, V(absent) removes it.
    type: str
    choices: [present, absent]
    default: present
  frontends:
    description:
      - Where clients connect to.
      - Each a string such as C(192.0.2.10:80/TCP) or C([2001:db8::10]:53/UDP), or a dictionary of C(address),
        C(port) and C(protocol).
    type: list
    elements: raw
  backends:
    description:
      - Where the traffic goes to.
      - Each a string such as C(10.0.1.11:8080) or C([2001:db8:1::11]:8080), or a dictionary of C(address), C(port)
        (unless the address holds it),
        C(weight) (0 to 65535, 100 unless given) and C(state).
      - C(state) is V(active), V(terminating), V(quarantined) or V(maintenance). Only active backends get new
        connections.
    type: list
    elements: raw
  algorithm:
    description: How a new flow finds its backend, V(random) or V(maglev). Unless given, as the load balancer's
      options say.
    type: str
  mode:
    description: How requests reach the backends and replies the clients, V(snat) or V(dsr). Unless given, as the load
      balancer's options say, which must allow services to choose (C(bpf-lb-mode-annotation)).
    type: str
  health_check:
    description:
      - How each load-balancer node checks the backends. Without, backends count as healthy.
      - C(type) is V(tcp), V(http) or V(https).
      - C(interval) and C(timeout) are numbers of seconds or durations such as V(500ms).
      - C(rise) and C(fall) are the numbers of successes and failures in a row that change a backend's health.
      - C(port) is the port to check, unless it is the backend's own.
      - C(path), C(host), C(status) (codes that count as healthy) and C(verify_tls) are for V(http) and V(https).
      - C(all_failed) is what happens when no backend is healthy, V(closed) (clients are refused) or V(open) (all are
        used).
    type: dict
  global:
    description:
      - Whether backends that other clusters of the mesh share for the service of this name serve it as well, and
        others may use its own.
      - The name in the mesh is that of the service, V(NAMESPACE/NAME), or V(NAME) in namespace C(default).
    type: bool
  affinity:
    description: Which backends of a global service are used, V(local) or V(remote) ones while there are healthy ones.
      V(none), all of them, unless given.
    type: str
  shared:
    description: Whether other clusters may use the backends of a global service. V(true) unless given.
    type: bool
  mesh_name:
    description:
      - What a global service is called in the mesh, V(NAMESPACE/NAME), where that is not its name.
      - Several services with the same one are the ports, or the address families, of one.
    type: str
  port_name:
    description: What the port of a global service is called in the mesh. Needed where O(mesh_name) has several.
    type: str
  services:
    description: Several services, each a dictionary of O(name), O(state), O(frontends), O(backends), O(algorithm),
      O(mode), O(health_check), O(global), O(affinity), O(shared), O(mesh_name) and O(port_name).
    type: list
    elements: dict
  manifests:
    description:
      - Manifests of Kubernetes that describe services, each a dictionary of kind C(Service), C(EndpointSlice), or a
        C(List) of them.
      - A Service is one service for each of its ports and address families, C(NAMESPACE/NAME/PORT), with C(/ipv6)
        behind it for IPv6.
      - Everything in them that would have no effect is refused.
    type: list
    elements: dict
  purge:
    description: Remove the services that neither O(services) nor O(manifests) has.
    type: bool
seealso:
  - module: ebpf.datapath.lb_options
"""

EXAMPLES = r"""
- name: A web service with one heavy backend
  ebpf.datapath.service:
    name: web
    frontends:
      - 192.0.2.10:80/TCP
    backends:
      - address: 10.0.1.11:8080
        weight: 300
      - 10.0.1.12:8080
    health_check:
      type: http
      path: /healthz
      interval: 1s
      timeout: 500ms

- name: A service that other clusters stand in for while it has no healthy backend
  ebpf.datapath.service:
    name: shop/api
    frontends: ["192.0.2.11:80/TCP"]
    backends: ["10.0.1.21:8080"]
    global: true
    affinity: local

- name: Two services that are the ports of one in the mesh, whose backends other clusters do not get
  ebpf.datapath.service:
    services:
      - name: shop-http
        frontends: ["192.0.2.12:80/TCP"]
        backends: ["10.0.1.31:8080"]
        global: true
        shared: false
        mesh_name: shop/web
        port_name: http
      - name: shop-https
        frontends: ["192.0.2.12:443/TCP"]
        backends: ["10.0.1.31:8443"]
        global: true
        shared: false
        mesh_name: shop/web
        port_name: https

- name: Exactly these services
  ebpf.datapath.service:
    services:
      - name: dns
        frontends: ["192.0.2.53:53/UDP", "192.0.2.53:53/TCP"]
        backends: ["10.0.1.11:53", "10.0.1.12:53"]
        algorithm: maglev
      - name: dns6
        frontends: ["[2001:db8::53]:53/UDP"]
        backends: ["[2001:db8:1::11]:53"]
    purge: true

- name: What a manifest of Kubernetes describes
  ebpf.datapath.service:
    manifests: "{{ lookup('ansible.builtin.file', 'web.yml') | from_yaml_all }}"

- name: Remove a service
  ebpf.datapath.service:
    name: web
    state: absent
"""

RETURN = r"""
changed:
  description: Whether the node was changed, or in check mode would be.
  returned: always
  type: bool
  sample: true
document:
  description: The desired state that was handed to the executor. Give it as O(pending) to a later task of the same
    dry run.
  returned: success
  type: dict
operations:
  description: What was done, or in check mode would be done, in order. At most 1000, RV(operation_count) counts all.
  returned: success
  type: list
  elements: dict
  contains:
    action:
      description: One of V(create), V(update), V(delete), V(attach), V(replace), V(detach), V(set).
      type: str
    target:
      description: What it is done to.
      type: str
    key:
      description: Which one, where the target holds many.
      type: str
    before:
      description: Value before.
      type: raw
    after:
      description: Value after.
      type: raw
    summary:
      description: The operation in one line.
      type: str
  sample:
    - action: create
      target: map services_v1
      key: 192.0.2.10:80/TCP
      before:
      after: web
      summary: create frontend 192.0.2.10:80/TCP of service web
operation_count:
  description: Number of operations.
  returned: success
  type: int
  sample: 1
disruption:
  description: What the change means for traffic. C(slots_moved) is the share of Maglev slots of each service that
    lead to another backend,
    C(flows_affected) the number of established flows that lose theirs.
  returned: success
  type: dict
  sample:
    slots_moved:
      web/TCP: 0.31
    flows_affected:
      web/TCP: 12
    notes: []
map_writes:
  description: Number of map updates and deletions that the kernel was asked for.
  returned: success
  type: int
  sample: 3
errors:
  description: Every violation, when the executor or the kernel refused.
  returned: failure
  type: list
  elements: dict
  contains:
    document:
      description: Section of the desired state, or V(kernel).
      type: str
    path:
      description: Where in the document.
      type: str
    value:
      description: The value that was refused.
      type: raw
    message:
      description: Why.
      type: str
    allowed:
      description: What is allowed there.
      type: str
    nearest:
      description: The nearest valid name or value.
      type: str
    log:
      description: The verifier's log, when the kernel refused a program.
      type: str
  sample:
    - document: services
      path: services.items[0].frontends[0].port
      value: 70000
      message: not a port
      allowed: 1 to 65535
      nearest:
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.ebpf.datapath.plugins.module_utils import executor

_SERVICE = (
    "name",
    "state",
    "frontends",
    "backends",
    "algorithm",
    "mode",
    "health_check",
    "global",
    "affinity",
    "shared",
    "mesh_name",
    "port_name",
)
_MANY = ("services", "manifests")


def document(params):
    """The section `services` of the desired state."""
    lists = {"items": params["services"], "manifests": params["manifests"]}
    if any(each is not None for each in lists.values()):
        given = {key: each for key, each in lists.items() if each is not None}
        return {"services": {**given, "purge": bool(params["purge"])}}
    return {"services": {"items": [executor.given(params, _SERVICE)], "purge": False}}


def main():
    module = AnsibleModule(
        argument_spec=dict(
            executor.apply_arguments(),
            name={"type": "str"},
            state={"type": "str", "choices": ["present", "absent"], "default": "present"},
            frontends={"type": "list", "elements": "raw"},
            backends={"type": "list", "elements": "raw"},
            algorithm={"type": "str"},
            mode={"type": "str"},
            health_check={"type": "dict"},
            affinity={"type": "str"},
            shared={"type": "bool"},
            mesh_name={"type": "str"},
            port_name={"type": "str"},
            services={"type": "list", "elements": "dict"},
            manifests={"type": "list", "elements": "dict"},
            purge={"type": "bool"},
            # a keyword of Python, so no keyword argument
            **{"global": {"type": "bool"}},
        ),
        mutually_exclusive=[[many, key] for many in _MANY for key in _SERVICE if key != "state"],
        required_one_of=[["name", *_MANY]],
        supports_check_mode=True,
    )
    if module.params["purge"] is not None and module.params["name"] is not None:
        module.fail_json(msg="purge is for services or manifests, not for one service: it would remove all others")
    executor.apply(module, document(module.params))


if __name__ == "__main__":
    main()
