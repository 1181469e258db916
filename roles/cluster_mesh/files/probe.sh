# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# Prints what role cluster_mesh judges of a node, one thing a line. Reads only. POSIX sh, for a fresh node may have no Python.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# shellcheck disable=SC2154 # the role sets it in front of this script: the time when the control node sent it
echo "clock $sent $(date +%s.%N)"
! command -v python3 >/dev/null || echo "python yes"
[ ! -d /run/systemd/system ] || echo "systemd yes"
for manager in apt-get dnf zypper; do
    ! command -v "$manager" >/dev/null || { echo "package_manager $manager"; break; }
done
if command -v etcd >/dev/null && command -v etcdctl >/dev/null; then
    etcd --version 2>/dev/null | sed -n 's/^etcd Version: /etcd /p'
elif command -v apt-cache >/dev/null; then
    apt-cache policy etcd-server 2>/dev/null | sed -n 's/^ *Candidate: \([0-9]\)/etcd_candidate \1/p'
fi
[ ! -e /etc/systemd/system/etcd.service.d/datapath.conf ] || echo "etcd_ours yes"
if systemctl -q is-active etcd.service 2>/dev/null; then
    echo "etcd_active yes"
    directory=/etc/datapath/etcd
    endpoint=$(sed -n 's/^ETCD_ADVERTISE_CLIENT_URLS=//p' "$directory/etcd.env" 2>/dev/null)
    [ -z "$endpoint" ] || ETCDCTL_API=3 etcdctl --endpoints "$endpoint" --cacert "$directory/ca.pem" --cert "$directory/root.pem" \
        --key "$directory/root.key" member list 2>/dev/null | cut -d, -f3 | tr -d '\n' | sed 's/^/etcd_members/; s/$/\n/'
fi
