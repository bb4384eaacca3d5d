"""Data sets, their labels, random views, and batches that are a function of the step."""
