# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  executable:
    description:
      - Path of the executor's command on the node.
      - A path that ends in C(.pyz) is run by the Python interpreter that runs the module.
    type: path
    default: /usr/local/sbin/datapath
requirements:
  - The executor on the node, as the role R(ebpf.datapath.executor, ansible_collections.ebpf.datapath.executor_role)
    installs it.
author:
  - The ebpf.datapath authors (!UNKNOWN)
"""

    APPLY = r"""
options:
  pending:
    description:
      - Sections of the desired state that earlier tasks of the same dry run would have applied, as their return
        value RV(document) tells.
      - Used in check mode only, so that a dry run of several tasks predicts what the real run does. Their own
        effects are not reported again.
    type: dict
"""

    ATTRIBUTES = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/ebpf.datapath.all) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - ebpf.datapath.all
  check_mode:
    description: Can run in C(check_mode) and return what would change, without changing anything on the node.
    support: full
  platform:
    description: Target systems that the module works on.
    support: full
    platforms: linux
"""

    DIFF = r"""
options: {}
attributes:
  diff_mode:
    description: Returns what changes, or in check mode would change, in the kernel.
    support: full
"""

    DIFF_NONE = r"""
options: {}
attributes:
  diff_mode:
    description: Nothing is changed, so there is nothing to compare.
    support: N/A
  facts:
    description: Returns what it found as return values.
    support: N/A
"""
