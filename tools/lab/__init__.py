"""The lab: systemd-nspawn nodes on a routed dual-stack topology, created and destroyed as a whole."""
