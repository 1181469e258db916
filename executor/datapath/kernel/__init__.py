"""The kernel stage: bpf(2) through libbpf, netlink, sysctl. The only place that touches the kernel."""

from __future__ import annotations

from datapath.kernel.errors import KernelError
from datapath.kernel.kernel import Kernel
from datapath.kernel.objects import ObjectSource

__all__ = ["Kernel", "KernelError", "ObjectSource"]
