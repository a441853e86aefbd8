"""Methods that remove whole units: neurons, filters, channels."""
