"""The forms in which a model could travel: made, measured, and one of them chosen."""
