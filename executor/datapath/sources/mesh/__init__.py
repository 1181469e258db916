"""Other clusters, followed by what they publish in their stores, in Cilium's own layout."""
