#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

DOCUMENTATION = r"""
module: datapath_info
short_description: Tell what the datapath of a node is and can be
version_added: 0.1.0
description:
  - Kernel features as probed, what each network device can do, the programs and maps that are loaded, and versions.
  - Reads only, and works without a running executor daemon too.
extends_documentation_fragment:
  - ebpf.datapath.executor
  - ebpf.datapath.executor.attributes
  - ebpf.datapath.executor.diff_none
"""

EXAMPLES = r"""
- name: Look at the node
  ebpf.datapath.datapath_info:
  register: node

- name: Show the devices
  ansible.builtin.debug:
    var: node.datapath.devices
"""

RETURN = r"""
datapath:
  description: What C(datapath info -o json) tells about the node.
  returned: success
  type: dict
  contains:
    version:
      description: Version of the executor.
      type: str
    kernel:
      description: The kernel's release.
      type: str
    cpus:
      description: Number of CPUs that the kernel may use.
      type: int
    features:
      description: Kernel features by name, and whether a probe found each.
      type: dict
    devices:
      description:
        - Network devices by name, each with index, driver, kind (such as bond, vlan or veth), mac, mtu, up, addresses
          and channels.
        - C(native_xdp) is whether the driver runs XDP programs, null where only attaching one could tell.
          C(native_xdp_reason) is why not, C(native_xdp_remedy) what to do.
        - C(xdp_mode) is how a program is attached now (native, generic, offload, or empty).
        - C(lower) are the devices that frames arrive at first, such as the ports of a bond.
      type: dict
    default_devices:
      description: Devices of the default routes.
      type: list
      elements: str
    load_balancer:
      description:
        - The load balancer's program as it is attached, null when it is not.
        - C(attachments) are devices, each with the XDP mode V(native) or V(generic), or V(tc).
        - C(foreign) tells what is wrong on which device.
      type: dict
    dsr_backend:
      description:
        - The programs by which this node, a backend, answers clients itself, null when they are not attached.
        - C(devices) are where, C(problems) tells what is wrong on which device.
      type: dict
    maps:
      description: The datapath's maps, each with name, size and, where they can be counted cheaply, entries.
      type: list
      elements: dict
    programs:
      description:
        - The programs that module M(ebpf.datapath.program) manages, each with name, function, hook, where it is
          attached and the kernel's tag.
        - C(object) is the path that it was loaded from, empty where that was C source, which is C(source) then.
      type: raw
  sample:
    version: 0.1.0
    kernel: 6.1.0-18-amd64
    cpus: 4
    features:
      btf: true
      xdp_link: true
      sch_fq: false
    devices:
      eth0:
        name: eth0
        index: 2
        driver: virtio_net
        mac: 52:54:00:12:34:56
        mtu: 1500
        up: true
        addresses: [192.0.2.1/24]
        native_xdp: true
        native_xdp_reason: ""
        native_xdp_remedy: ""
        xdp_mode: native
        kind: ""
        lower: []
        channels: {used: 2, most: 8}
    default_devices: [eth0]
    load_balancer:
      tag: e0cfb54f2e4b9da2
      attachments:
        eth0: native
      foreign: {}
    dsr_backend:
    maps:
      - name: services_v1
        entries: 4
        size: 65536
    programs: []
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.ebpf.datapath.plugins.module_utils import executor


def main():
    module = AnsibleModule(argument_spec=executor.common_arguments(), supports_check_mode=True)
    executor.run(module, lambda node: {"datapath": node.info()})


if __name__ == "__main__":
    main()
