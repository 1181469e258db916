"""What bcc compiles on the node: the tracing of drops, retransmits and round-trip times; users' own sources."""
