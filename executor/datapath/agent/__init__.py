"""datapathd: the single writer of kernel state, and its API on a unix socket."""
