"""What the farm measures. Standard library only, so that a donor can read here what is done to a cluster."""
