"""The methods, one algorithm per file. `registry.catalogue()` finds them; nothing lists them by hand."""
