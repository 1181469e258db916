"""What drivers are known to want before they take a native XDP program: one table, with where the kernel says it.

The table explains and predicts. Where attaching a harmless program is allowed, the driver's own answer decides, so
a kernel that wants less than the table says is not held back by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

from datapath.state.facts import Channels


@dataclass(frozen=True)
class Driver:
    """Limits of a driver, for pages of 4 KiB."""

    max_mtu: Optional[int] = None
    """Largest MTU at which a frame fits into one buffer beside XDP's headroom."""
    of_peer: bool = False
    """Whether `max_mtu` is about the device at the other end."""
    half_channels: bool = False
    """Whether at most half of the channels may be in use: XDP takes a transmit queue for each."""
    queue_per_cpu: bool = False
    """Whether a transmit queue for every CPU must be left beside those in use, or sending takes locks."""
    advice: str = ""
    """What to try when it refuses and no limit is exceeded."""


_ONE_BUFFER = 4096 - 256 - 320
"""Page, less XDP_PACKET_HEADROOM, less struct skb_shared_info (aligned)."""

DRIVERS: Mapping[str, Driver] = {
    # drivers/net/ethernet/amazon/ena/ena_xdp.h: ENA_XDP_MAX_MTU, ena_xdp_legal_queue_count(). Linux; Amazon's own
    # driver wants no free channels from 2.17 on.
    "ena": Driver(_ONE_BUFFER - 22, half_channels=True),
    # drivers/net/ethernet/mellanox/mlx5/core/en_main.c: mlx5e_params_validate_xdp(), mlx5e_xdp_allowed()
    "mlx5_core": Driver(
        _ONE_BUFFER - 22, advice="ethtool -K DEVICE lro off, ethtool --set-priv-flags DEVICE rx_striding_rq off"
    ),
    # drivers/net/ethernet/mellanox/mlx4/en_netdev.c: MLX4_EN_MAX_XDP_MTU
    "mlx4_en": Driver(_ONE_BUFFER - 22),
    # drivers/net/ethernet/intel/ixgbe/ixgbe_main.c: ixgbe_max_xdp_frame_size(), IXGBE_PKT_HDR_PAD; ixgbe_xdp_setup()
    "ixgbe": Driver(3072 - 26, advice="no SR-IOV and no DCB on this device"),
    # drivers/net/ethernet/intel/i40e/i40e_main.c: i40e_max_vsi_frame_size(), I40E_PACKET_HDR_PAD
    "i40e": Driver(3072 - 26, advice="ethtool --set-priv-flags DEVICE legacy-rx off"),
    # drivers/net/ethernet/intel/ice/ice_main.c: ice_max_xdp_frame_size(), ICE_ETH_PKT_HDR_PAD
    "ice": Driver(3072 - 26, advice="ethtool --set-priv-flags DEVICE legacy-rx off"),
    # drivers/net/ethernet/broadcom/bnxt/bnxt.h: BNXT_MAX_PAGE_MODE_MTU
    "bnxt_en": Driver(_ONE_BUFFER - 18, advice="ethtool -L DEVICE combined N, for rings that XDP can send by"),
    # drivers/net/virtio_net.c: virtnet_xdp_set()
    "virtio_net": Driver(
        _ONE_BUFFER - 14,
        queue_per_cpu=True,
        advice="offloads of the guest off at the hypervisor (QEMU: guest_tso4=off,guest_tso6=off,guest_ufo=off,"
        "guest_csum=off), and two queues for every CPU",
    ),
    # drivers/net/veth.c: veth_xdp_set()
    "veth": Driver(
        _ONE_BUFFER - 14,
        of_peer=True,
        advice="as many receive queues as the other end has transmit queues",
    ),
}


_UNKNOWN = Driver(_ONE_BUFFER - 14)


@dataclass(frozen=True)
class Hindrance:
    """Why a driver is known to refuse, and what to do about it."""

    reason: str
    remedy: str


def several_buffers(driver: str, mtu: int, peer_mtu: Optional[int] = None) -> bool:
    """Whether frames of such a device do not fit into one buffer beside XDP's headroom."""
    known = DRIVERS.get(driver, _UNKNOWN)
    seen = peer_mtu if known.of_peer else mtu
    return known.max_mtu is not None and seen is not None and seen > known.max_mtu


def hindrance(
    driver: str,
    device: str,
    mtu: int,
    channels: Optional[Channels],
    peer_mtu: Optional[int] = None,
    *,
    buffers: bool = False,
) -> Optional[Hindrance]:
    """The first limit of `driver` that the device exceeds; `buffers` says that it takes frames in several of them."""
    known = DRIVERS.get(driver, _UNKNOWN)
    if not buffers and driver in DRIVERS and several_buffers(driver, mtu, peer_mtu):
        seen = peer_mtu if known.of_peer else mtu
        whose, where = ("the other end's MTU", "OTHER_END") if known.of_peer else ("MTU", device)
        return Hindrance(
            f"{whose} {seen} is above {known.max_mtu}, the most that driver {driver} takes for XDP in one buffer",
            f"ip link set dev {where} mtu {known.max_mtu}",
        )
    if known.half_channels and channels is not None and 2 * channels.used > channels.most:
        return Hindrance(
            f"{channels.used} of {channels.most} channels are in use, and driver {driver} needs one more for each",
            f"ethtool -L {device} combined {max(1, channels.most // 2)}",
        )
    return None


def advice(driver: str, device: str) -> str:
    """What to try where the driver refuses for a reason that the table does not know."""
    return DRIVERS.get(driver, _UNKNOWN).advice.replace("DEVICE", device)


def slow_sending(driver: str, device: str, channels: Optional[Channels], cpus: int) -> Optional[Hindrance]:
    """Why a device that runs native XDP would send slower than it could."""
    known = DRIVERS.get(driver, _UNKNOWN)
    if known.queue_per_cpu and channels is not None and channels.used + cpus > channels.most:
        return Hindrance(
            f"{channels.most} queues are fewer than the {channels.used} in use and one for each of {cpus} CPUs, so what"
            " XDP sends shares queues behind a lock",
            f"{channels.used + cpus} queues at the hypervisor"
            + (f", or ethtool -L {device} combined {channels.most - cpus}" if channels.most > cpus else ""),
        )
    return None


def outlook(device: str, driver: str, mtu: int, lower: Sequence[str]) -> str:
    """What to expect of a device of which no more is known, in one line; `lower` are its ports or its parent."""
    if lower:
        return f"{device}: on top of {', '.join(lower)}, whose drivers decide about native XDP"
    seen = f"{device}: " + (f"driver {driver}" if driver else "no driver of a physical device") + f", MTU {mtu}"
    known = hindrance(driver, device, mtu, None)
    if known is not None:
        return (
            f"{seen}: native XDP if the kernel's driver takes frames in several buffers (some do from 6.3 on), for"
            f" {known.reason}; else {known.remedy}, or best-effort for generic mode"
        )
    if driver in DRIVERS:
        return f"{seen}: native XDP"
    return f"{seen}: the executor will find out whether it has native XDP (datapath info)"
