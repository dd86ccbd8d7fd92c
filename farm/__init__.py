"""The control plane: what is measured when, on which cluster, and what came of it."""
