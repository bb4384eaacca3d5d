"""Recordings that are no files of this machine: behind HTTP, in a playlist with an end, or coming through a pipe."""
