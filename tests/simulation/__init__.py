"""A deterministic simulator of a cluster: the ownership machine as it is, everything around it a model with faults."""
