"""What is said on standard error, and how."""

from __future__ import annotations

import logging

from rich.console import Console
from rich.logging import RichHandler

from pipeline.process import VisibleFormatter


def set_up_logging(console: Console, verbose: bool) -> None:
    """Log lines as plain sentences on standard error; those of other packages from warnings on."""
    handler: logging.Handler
    if console.is_terminal:
        handler = RichHandler(console=console, show_time=False, show_level=False, show_path=False, markup=False)
    else:
        handler = logging.StreamHandler()
    handler.setFormatter(VisibleFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for package in ("pipeline", "engines"):
        logging.getLogger(package).setLevel(logging.DEBUG if verbose else logging.INFO)


def spelt(seconds: float) -> str:
    """How long something takes.

    >>> spelt(12.3), spelt(150), spelt(9000)
    ('12 s', '2 min 30 s', '2 h 30 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
