"""A fleet of devices that are none: real connections, real records, drawn from real bundles."""
