"""datapath: the command line."""
