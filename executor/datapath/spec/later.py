"""Options that Cilium or Kubespray has and this version has not.

They are refused like unknown names, but the message says that the name is no typo.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_BECAUSE: Mapping[str, tuple[str, ...]] = {
    "replacing kube-proxy and balancing at sockets": (
        "kube-proxy-replacement cilium_kube_proxy_replacement",
        "kube-proxy-replacement-healthz-bind-address",
        "bpf-lb-sock",
        "bpf-lb-sock-hostns-only",
        "bpf-lb-sock-terminate-pod-connections",
        "bpf-lb-external-clusterip",
        "bpf-sock-rev-map-max",
        "node-port-range",
        "node-port-bind-protection",
        "nodeport-addresses",
        "enable-auto-protect-node-port-range",
        "enable-health-check-nodeport",
        "enable-health-check-loadbalancer-ip",
        "enable-local-redirect-policy",
        "enable-service-topology",
        "enable-session-affinity",
        "bpf-lb-affinity-map-max",
        "k8s-service-proxy-name",
    ),
    "IP tunnels from other load balancers, and NAT between address families": (
        "bpf-lb-ipip-sock-mark",
        "enable-ipip-termination",
        "bpf-lb-nat46x64",
        "enable-nat46x64-gateway",
    ),
    "source ranges": ("bpf-lb-source-range-map-max", "bpf-lb-source-range-all-types"),
    "service annotations": ("bpf-lb-algorithm-annotation",),
    "SCTP": ("enable-sctp",),
    "a state file of Kubernetes objects; services are set by module service or variable datapath_services": (
        "lb-state-file",
        "lb-state-file-interval",
    ),
    "the egress gateway and masquerading": (
        "enable-egress-gateway",
        "egress-gateway-policy-map-max",
        "enable-ipv4-masquerade cilium_enable_ipv4_masquerade",
        "enable-ipv6-masquerade cilium_enable_ipv6_masquerade",
        "enable-bpf-masquerade cilium_enable_bpf_masquerade",
        "enable-ip-masq-agent cilium_ip_masq_agent_enable",
    ),
    "encryption": (
        "enable-wireguard cilium_encryption_enabled",
        "enable-ipsec cilium_encryption_type",
        "encrypt-node cilium_encryption_node_encryption",
        "cilium_ipsec_key",
    ),
    "identities, and services of several clusters by name, in the cluster mesh": (
        "clustermesh-enable-mcs-api",
        "identity-allocation-mode cilium_identity_allocation_mode",
    ),
    "routing and tunnels between nodes": (
        "routing-mode",
        "tunnel-port",
        "auto-direct-node-routes cilium_auto_direct_node_routes",
        "ipv4-native-routing-cidr cilium_native_routing_cidr",
        "ipv6-native-routing-cidr cilium_native_routing_cidr_ipv6",
        "enable-endpoint-routes",
        "mtu cilium_mtu",
        "ipam cilium_ipam_mode",
    ),
    "BGP and layer 2 announcements": (
        "enable-bgp-control-plane cilium_enable_bgp_control_plane",
        "enable-l2-announcements cilium_l2announcements",
        "cilium_loadbalancer_ip_pools",
        "cilium_bgp_cluster_configs",
        "cilium_bgp_peer_configs",
        "cilium_bgp_advertisements",
    ),
    "network policy": (
        "enable-policy",
        "enable-host-firewall cilium_enable_host_firewall",
        "policy-audit-mode cilium_policy_audit_mode",
        "bpf-policy-map-max",
        "enable-l7-proxy",
    ),
    "Hubble": (
        "enable-hubble cilium_enable_hubble",
        "hubble-metrics cilium_hubble_metrics",
        "hubble-listen-address",
        "monitor-aggregation cilium_monitor_aggregation",
    ),
    "sizing maps by memory; set the sizes themselves": (
        "bpf-map-dynamic-size-ratio cilium_bpf_map_dynamic_size_ratio",
        "preallocate-bpf-maps cilium_preallocate_bpf_maps",
    ),
}

_KUBERNETES = """
memory_limit cpu_limit memory_requests cpu_requests agent_health_port deploy_additionally min_version_required
agent_extra_args agent_extra_volumes agent_extra_volume_mounts agent_extra_env_vars agent_custom_args
operator_replicas operator_tolerations operator_custom_args operator_extra_args operator_scrape_port
operator_api_serve_addr image_repo image_tag operator_image_repo operator_image_tag certgen_args cert_dir
rolling_restart_wait_retries_count rolling_restart_wait_retries_delay_seconds install_extra_flags cni_exclusive
cni_log_file enable_portmap pool_cidr pool_cidr_ipv6 pool_mask_size pool_mask_size_ipv6 gateway_api_enabled
cgroup_auto_mount disable_cnp_status_updates clusterrole_rules_operator_extra_vars enable_legacy_services
enable_remote_node_identity enable_well_known_identities tofqdns_enable_poller
"""
"""Kubespray's variables that shape Cilium's pods, without the prefix `cilium_`."""

_TUNNEL = (
    "nodes have no tunnels between them; direct server return has its own (bpf-lb-dsr-dispatch: ipip or geneve), and"
    " cannot go through VXLAN, which has no room for the service's address"
)

_INSTEAD: Mapping[str, str] = {
    "enable-l2-neigh-discovery": "next hops of backends and gateways are always kept resolved",
    "bpf-nat-global-max": "translations live in the flow maps: see bpf-ct-global-tcp-max and bpf-ct-global-any-max",
    "bpf-neigh-global-max": "neighbours are the kernel's own",
    "bpf-lb-rev-nat-map-max": "flows hold their reverse translation; there is no such map",
    "enable-pmtu-discovery": "a packet that is too big for the way to its backend is always answered with ICMP",
    "clustermesh-config": "peers are stated in the desired state's section clustermesh",
    "clustermesh-sync-timeout": "services are removed only once their cluster tells that it has published all it has",
    "node-port-mode": "use bpf-lb-mode",
    "tunnel-protocol": _TUNNEL,
    "cilium_tunnel_mode": _TUNNEL,
    "node-port-algorithm": "use bpf-lb-algorithm",
    "node-port-acceleration": "use bpf-lb-acceleration",
    "datapath-mode": "the load balancer is standalone; there is no such choice",
    "cilium_enable_prometheus": "set datapath_prometheus_serve_addr, as :9962, to serve metrics",
    "cilium_agent_scrape_port": "set datapath_prometheus_serve_addr, as :9962, to serve metrics",
    "cilium_extra_values": "Helm is not used; set options by their variables or cilium_config_extra_vars",
    "cilium_version": "the version is the collection's own",
    "cilium_cgroup_host_root": "there is no socket load balancer that would need the cgroup's path",
}


def _table() -> dict[str, str]:
    table = {name: f"not implemented here: {reason}" for name, reason in _INSTEAD.items()}
    for name in _KUBERNETES.split():
        table[f"cilium_{name}"] = "has no effect here: it shapes Cilium's pods in Kubernetes"
    for feature, rows in _BECAUSE.items():
        for row in rows:
            for name in row.split():
                table[name] = f"not implemented in this version: {feature}"
    return table


LATER: Mapping[str, str] = MappingProxyType(_table())
"""Name (Cilium agent key or Kubespray variable) -> why it is refused."""
