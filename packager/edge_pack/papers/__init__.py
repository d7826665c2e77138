"""What is written about a bundle: provenance inside it, and papers and a report beside it."""
