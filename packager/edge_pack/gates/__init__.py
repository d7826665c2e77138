"""Gates: what a bundle must show before it is sealed."""
