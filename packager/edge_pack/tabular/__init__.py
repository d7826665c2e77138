"""Files of rows, read piece by piece: what every row shows, and which rows are kept."""
