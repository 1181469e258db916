"""ebpf.datapath: the node-side executor.

One direction of flow, one folder a stage:

    spec     text or dict -> desired state, or errors with paths (the only parser)
    state    the frozen vocabulary that the stages exchange
    sources  desired-state documents and health results -> one merged state
    compile  merged state -> what the kernel should hold       (pure)
    plan     want against have -> ordered operations            (pure)
    kernel   bpf(2), netlink, sysctl: the only place that touches the kernel
    agent    datapathd: the single writer, its API on a unix socket
    cli      datapath: the operator's command line
"""

__version__ = "0.1.0"
