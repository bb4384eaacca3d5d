"""Cameras: connected, watched and connected again."""
