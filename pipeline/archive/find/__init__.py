"""Asking an archive: a small typed expression, the moments at which it is true, and cuts of their clips."""
