"""One module a framework: each makes ``subject.Subject`` out of a file of its kind."""
