"""Numbers and structures of linux/bpf.h and of libbpf's options, as far as this project meets them."""

from __future__ import annotations

import ctypes
import enum


class MapType(enum.IntEnum):
    """`enum bpf_map_type` of linux/bpf.h, as far as this project meets it."""

    HASH = 1
    ARRAY = 2
    PERF_EVENT_ARRAY = 4
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LRU_PERCPU_HASH = 10
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    HASH_OF_MAPS = 13


class ProgramType(enum.IntEnum):
    """`enum bpf_prog_type`."""

    SCHED_CLS = 3
    XDP = 6
    CGROUP_SKB = 8
    CGROUP_SOCK = 9
    SOCK_OPS = 13
    CGROUP_DEVICE = 15
    CGROUP_SOCK_ADDR = 18
    CGROUP_SYSCTL = 23
    CGROUP_SOCKOPT = 25


class LinkType(enum.IntEnum):
    """`enum bpf_link_type`."""

    CGROUP = 3
    XDP = 6
    TCX = 11


class AttachType(enum.IntEnum):
    """`enum bpf_attach_type`."""

    CGROUP_INET_INGRESS = 0
    CGROUP_SOCK_OPS = 3
    XDP = 37
    TCX_INGRESS = 46
    TCX_EGRESS = 47


BPF_ANY = 0
BPF_NOEXIST = 1
BPF_F_NO_COMMON_LRU = 1 << 1
BPF_F_RDONLY_PROG = 1 << 7
BPF_F_XDP_HAS_FRAGS = 1 << 5
XDP_FLAGS_SKB_MODE = 1 << 1
XDP_FLAGS_DRV_MODE = 1 << 2

OBJECT_NAME_LENGTH = 16


class OpenOptions(ctypes.Structure):
    """`struct bpf_object_open_opts`."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("object_name", ctypes.c_char_p),
        ("relaxed_maps", ctypes.c_bool),
        ("pin_root_path", ctypes.c_char_p),
        ("reserved", ctypes.c_uint32),
        ("kconfig", ctypes.c_char_p),
        ("btf_custom_path", ctypes.c_char_p),
        ("kernel_log_buf", ctypes.c_void_p),
        ("kernel_log_size", ctypes.c_size_t),
        ("kernel_log_level", ctypes.c_uint32),
    )


class MapCreateOptions(ctypes.Structure):
    """The part of `struct bpf_map_create_opts` that is used here."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("btf_fd", ctypes.c_uint32),
        ("btf_key_type_id", ctypes.c_uint32),
        ("btf_value_type_id", ctypes.c_uint32),
        ("btf_vmlinux_value_type_id", ctypes.c_uint32),
        ("inner_map_fd", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("map_extra", ctypes.c_uint64),
        ("numa_node", ctypes.c_uint32),
        ("map_ifindex", ctypes.c_uint32),
    )


class BatchOptions(ctypes.Structure):
    """The part of `struct bpf_map_batch_opts` that is used here."""

    _fields_ = (("sz", ctypes.c_size_t), ("elem_flags", ctypes.c_uint64), ("flags", ctypes.c_uint64))


class LinkCreateOptions(ctypes.Structure):
    """The part of `struct bpf_link_create_opts` that is used here."""

    _fields_ = (("sz", ctypes.c_size_t), ("flags", ctypes.c_uint32), ("reserved", ctypes.c_uint32))


class LinkUpdateOptions(ctypes.Structure):
    """The part of `struct bpf_link_update_opts` that is used here."""

    _fields_ = (("sz", ctypes.c_size_t), ("flags", ctypes.c_uint32), ("old_prog_fd", ctypes.c_uint32))


class ProgLoadOptions(ctypes.Structure):
    """The part of `struct bpf_prog_load_opts` that is used here."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("attempts", ctypes.c_int),
        ("expected_attach_type", ctypes.c_int),
        ("prog_btf_fd", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
    )


class TestRunOptions(ctypes.Structure):
    """The part of `struct bpf_test_run_opts` that is used here."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("data_in", ctypes.c_void_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


class ProgramInfo(ctypes.Structure):
    """The part of `struct bpf_prog_info` that is read here."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("tag_bytes", ctypes.c_uint8 * 8),
        ("jited_prog_len", ctypes.c_uint32),
        ("xlated_prog_len", ctypes.c_uint32),
        ("jited_prog_insns", ctypes.c_uint64),
        ("xlated_prog_insns", ctypes.c_uint64),
        ("load_time", ctypes.c_uint64),
        ("created_by_uid", ctypes.c_uint32),
        ("nr_map_ids", ctypes.c_uint32),
        ("map_ids", ctypes.c_uint64),
        ("name_bytes", ctypes.c_char * OBJECT_NAME_LENGTH),
        ("ifindex", ctypes.c_uint32),
        ("gpl_compatible", ctypes.c_uint32),
        ("netns_dev", ctypes.c_uint64),
        ("netns_ino", ctypes.c_uint64),
        ("nr_jited_ksyms", ctypes.c_uint32),
        ("nr_jited_func_lens", ctypes.c_uint32),
        ("jited_ksyms", ctypes.c_uint64),
        ("jited_func_lens", ctypes.c_uint64),
        ("btf_id", ctypes.c_uint32),
        ("func_info_rec_size", ctypes.c_uint32),
        ("func_info", ctypes.c_uint64),
        ("nr_func_info", ctypes.c_uint32),
        ("nr_line_info", ctypes.c_uint32),
    )

    @property
    def tag(self) -> str:
        """The kernel's tag of the instructions, 16 hex digits."""
        return bytes(self.tag_bytes).hex()

    @property
    def name(self) -> str:
        """Name of the function, cut by the kernel at 15 characters."""
        return bytes(self.name_bytes).decode()


class MapInfo(ctypes.Structure):
    """The part of `struct bpf_map_info` that is read here."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("name_bytes", ctypes.c_char * OBJECT_NAME_LENGTH),
    )

    @property
    def name(self) -> str:
        """Name, cut by the kernel at 15 characters."""
        return bytes(self.name_bytes).decode()


class LinkInfo(ctypes.Structure):
    """`struct bpf_link_info`; `target` is the union: words of the link type's own structure."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
        ("target", ctypes.c_uint32 * 10),
    )

    @property
    def ifindex(self) -> int:
        """XDP and TCX links: the device; 0 when the device is gone (the link is then dead)."""
        return int(self.target[0])

    @property
    def attach_type(self) -> int:
        """TCX: word 1; cgroup: behind the 64-bit cgroup id."""
        return int(self.target[2 if self.type == LinkType.CGROUP else 1])

    @property
    def cgroup_id(self) -> int:
        """Cgroup links: inode number of the cgroup's directory; 0 when the cgroup is gone."""
        return int(self.target[0]) | int(self.target[1]) << 32


class SkBuff(ctypes.Structure):
    """`struct __sk_buff`, the context of a tc program, as far as a run may set it."""

    _fields_ = (
        ("len", ctypes.c_uint32),
        ("pkt_type", ctypes.c_uint32),
        ("mark", ctypes.c_uint32),
        ("queue_mapping", ctypes.c_uint32),
        ("protocol", ctypes.c_uint32),
        ("vlan_present", ctypes.c_uint32),
        ("vlan_tci", ctypes.c_uint32),
        ("vlan_proto", ctypes.c_uint32),
        ("priority", ctypes.c_uint32),
        ("ingress_ifindex", ctypes.c_uint32),
        ("ifindex", ctypes.c_uint32),
    )


class XdpMd(ctypes.Structure):
    """`struct xdp_md`, the context of an XDP program, for `test_run`."""

    _fields_ = (
        ("data", ctypes.c_uint32),
        ("data_end", ctypes.c_uint32),
        ("data_meta", ctypes.c_uint32),
        ("ingress_ifindex", ctypes.c_uint32),
        ("rx_queue_index", ctypes.c_uint32),
        ("egress_ifindex", ctypes.c_uint32),
    )


class FunctionInfo(ctypes.Structure):
    """`struct bpf_func_info`."""

    _fields_ = (("insn_off", ctypes.c_uint32), ("type_id", ctypes.c_uint32))
