"""Theory made visible: a small measurement, a figure and a table for each claim."""
