"""Losses, a module for each kind of answer."""
