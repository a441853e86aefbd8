"""Methods that prune a trained network and let what stays make up for what leaves."""
