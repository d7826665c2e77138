"""How good a model still is: from its scores alone, from labelled rows of old, from late labels."""
