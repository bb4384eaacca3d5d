"""A trip told on one page: what was seen, whom one met, what happened, and what is not known."""
