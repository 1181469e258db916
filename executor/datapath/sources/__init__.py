"""Desired-state documents and health results: what the merged state is made of."""
