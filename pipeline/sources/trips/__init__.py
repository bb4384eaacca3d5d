"""Trips: which files of a folder are clips, of which camera, and in which order."""
