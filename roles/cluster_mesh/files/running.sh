# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# Prints whether this node's member of the store is stopped, or has been started with other settings or CAs than are there now.
directory=/etc/datapath/etcd
systemctl --quiet is-active etcd.service || { echo stopped; exit; }
cat "$directory/etcd.env" "$directory/ca.pem" | sha256sum | cmp --silent - /run/datapath-etcd.started || echo outdated
