"""The command line. `main` knows the verbs by name only and imports the one that is asked for."""
