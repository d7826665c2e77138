"""When to say that a model should be retrained, and saying it."""
