"""The fleet over HTTP: what is in its store, and what a person decides about alarms."""
