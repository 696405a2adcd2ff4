"""What kinds of content bring to the core; each is found by its name."""
