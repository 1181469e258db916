# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# Prints what role preflight judges, one thing a line. Reads only. POSIX sh, for a fresh node may have no Python.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

echo "uid $(id -u)"
echo "kernel $(uname -r)"
echo "machine $(uname -m)"
while read -r name value; do
    [ "$name" != CapEff: ] || echo "capabilities $value"
done </proc/self/status
[ ! -e /sys/kernel/btf/vmlinux ] || echo "btf yes"
[ ! -r /sys/kernel/security/lockdown ] || grep -o '\[[a-z]*\]' /sys/kernel/security/lockdown | sed 's/^/lockdown /'
echo "filesystems $(sed 's/.*\t//' /proc/filesystems | tr '\n' ' ')"
while read -r _ where kind _; do
    case $kind in bpf | cgroup2) echo "mount $kind $where" ;; esac
done </proc/mounts
is_module() { grep -qs "/$1\.ko" "/lib/modules/$(uname -r)/modules.builtin" "/lib/modules/$(uname -r)/modules.dep"; }
# Built in or loaded; else there as a module, which is not loaded to find out.
if grep -qs ' fq_qdisc_ops' /proc/kallsyms || is_module sch_fq; then echo "sch_fq yes"; fi
if grep -qsw bbr /proc/sys/net/ipv4/tcp_available_congestion_control || is_module tcp_bbr; then echo "tcp_bbr yes"; fi
# Helpers that came with what BBR needs; to load a program takes more than a shell.
! grep -qs ' bpf_skb_set_tstamp$' /proc/kallsyms || echo "delivery_time yes"
! grep -qs ' bpf_get_netns_cookie_sock_ops$' /proc/kallsyms || echo "sock_ops_netns yes"
[ ! -d /sys/fs/bpf ] || echo "bpffs_directory yes"
[ ! -e /etc/systemd/system/datapath-bpffs.service ] || echo "bpffs_unit yes"
[ ! -d /run/systemd/system ] || echo "systemd yes"

# A minimal Python (Debian's python3-minimal) lacks modules that the executor needs, so it does not count.
python=$(python3 -c 'import asyncio, ctypes, json, ssl, sys, zipfile; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)
[ -z "$python" ] || echo "python $python"
for library in /usr/lib/*/libbpf.so.1 /usr/lib64/libbpf.so.1 /usr/lib/libbpf.so.1 /lib/*/libbpf.so.1; do
    [ ! -e "$library" ] || { echo "libbpf $library"; break; }
done
for manager in apt-get dnf zypper; do
    ! command -v "$manager" >/dev/null || { echo "package_manager $manager"; break; }
done

[ ! -r /proc/sys/net/ipv4/ip_local_port_range ] || echo "local_ports $(tr '\t' ' ' </proc/sys/net/ipv4/ip_local_port_range)"
for device in /sys/class/net/*; do
    [ -e "$device/ifindex" ] || continue
    driver=$(readlink "$device/device/driver" || echo -)
    echo "device ${device##*/} ${driver##*/} $(cat "$device/operstate") $(cat "$device/mtu")"
    for lower in "$device"/lower_*; do
        [ ! -e "$lower" ] || echo "lower ${device##*/} ${lower##*/lower_}"
    done
done
if command -v ip >/dev/null; then
    ip -o address show scope global | while read -r _ _ _ address _; do echo "address ${address%/*}"; done
    { ip -o -4 route show default; ip -o -6 route show default; } | sed 's/^/default_route /'
    # shellcheck disable=SC2154 # the role sets it in front of this script: backends of direct server return
    for address in $backends; do ip -o route get "$address" 2>/dev/null | sed "s/^/route $address /"; done
fi
[ ! -L /opt/datapath/current.pyz ] || echo "installed $(readlink /opt/datapath/current.pyz)"
