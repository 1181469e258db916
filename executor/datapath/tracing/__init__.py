"""Why the kernel dropped packets, TCP retransmits and round-trip times: bcc programs compiled on the node."""
