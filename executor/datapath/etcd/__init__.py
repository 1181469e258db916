"""A client of etcd over gRPC with certificates: what of its API is used here, and errors in words."""
