"""Dynamic sparse training: the topology is learned with the weights."""
