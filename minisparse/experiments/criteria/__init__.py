"""Studies of the criteria: what they choose, made visible on the embedded digits."""
