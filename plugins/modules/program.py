#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

DOCUMENTATION = r"""
module: program
short_description: Load and attach an eBPF program
version_added: 0.1.0
description:
  - Loads an eBPF object that is on the node, or one program of it, pins it, and attaches it to XDP, to tc, or to a
    cgroup.
  - Instead of an object it takes C source, which bcc compiles on the node for the running kernel. That takes
    C(python3-bpfcc) and the kernel's headers, which role C(ebpf.datapath.tracing) installs; without them the
    source is refused.
  - A program that is attached already is replaced atomically. One that the kernel's verifier rejects leaves the old
    one running, and the
    verifier's log is part of the error.
  - Programs that others have loaded are never touched.
extends_documentation_fragment:
  - ebpf.datapath.executor
  - ebpf.datapath.executor.apply
  - ebpf.datapath.executor.attributes
  - ebpf.datapath.executor.diff
options:
  name:
    description: Name under which the program is managed.
    type: str
    required: true
  state:
    description: V(present) loads and attaches the program, V(absent) detaches it and removes its pins.
    type: str
    choices: [present, absent]
    default: present
  object:
    description: Path of the ELF object on the node. For V(present), this or O(source) is needed.
    type: path
  source:
    description:
      - C text, at most 256 KiB, with bcc's macros and the headers of the node's kernel. It becomes part of the node's
        desired state, so that the node compiles it again by itself after a reboot.
      - Each function that is not C(static) is a program. It can be attached to V(xdp) and to V(tc) only, because bcc
        does not keep the name of a function's section, which would say what kind of program it is.
      - Maps that pin themselves, such as C(BPF_TABLE_PINNED), are refused. Each change of the source makes new maps.
      - In a dry run the source is compiled and shown to the verifier as well. With C(--diff) its changed lines are
        shown.
      - Text with two braces in a row that stands in the playbook itself has to be tagged C(!unsafe).
    type: str
  program:
    description: Name of the program (function) in the object or source. Needed where it holds more than one.
    type: str
  attach:
    description:
      - Where the program is attached. Without, it is loaded and pinned only.
      - C(type) is V(xdp), V(tc), V(cgroup) or V(none).
      - For V(xdp), C(device) and C(mode), V(native) or V(generic).
      - For V(tc), C(device) and C(direction), V(ingress) or V(egress).
      - For V(cgroup), C(cgroup), the path of a cgroup v2 directory.
    type: dict
  pin:
    description: Where the program is pinned, unless it is C(/sys/fs/bpf/datapath/programs/NAME).
    type: path
"""

EXAMPLES = r"""
- name: Copy the object
  ansible.builtin.copy:
    src: count.bpf.o
    dest: /opt/count/count.bpf.o
    mode: "0644"

- name: Attach it to a device, in the driver
  ebpf.datapath.program:
    name: count
    object: /opt/count/count.bpf.o
    program: count_packets
    attach:
      type: xdp
      device: eth0
      mode: native

- name: Compile it on the node instead
  ebpf.datapath.program:
    name: count
    source: "{{ lookup('ansible.builtin.file', 'count.c') }}"
    attach:
      type: xdp
      device: eth0

- name: Remove it
  ebpf.datapath.program:
    name: count
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

_PROGRAM = ("name", "state", "object", "source", "program", "attach", "pin")


def document(params):
    """The section `programs` of the desired state."""
    return {"programs": {"items": [executor.given(params, _PROGRAM)], "purge": False}}


def main():
    module = AnsibleModule(
        argument_spec=dict(
            executor.apply_arguments(),
            name={"type": "str", "required": True},
            state={"type": "str", "choices": ["present", "absent"], "default": "present"},
            object={"type": "path"},
            source={"type": "str"},
            program={"type": "str"},
            attach={"type": "dict"},
            pin={"type": "path"},
        ),
        required_if=[["state", "present", ["object", "source"], True]],
        mutually_exclusive=[["object", "source"]],
        supports_check_mode=True,
    )
    executor.apply(module, document(module.params))


if __name__ == "__main__":
    main()
