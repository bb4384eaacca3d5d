"""Offline: data sets, models, losses, one training loop, evaluation, export."""
