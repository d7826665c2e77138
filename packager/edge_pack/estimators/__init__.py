"""scikit-learn beyond trees: what stock conversion lacks, loses in float32, or gets wrong."""
