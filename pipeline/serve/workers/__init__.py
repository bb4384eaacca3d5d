"""A server of several processes: the parent has the address, the pages and the sums; what is of one stream it passes on
to the worker that has the stream.
"""

ROOT_HEADER = b"x-roadlens-root"
"""The sub-path below which the parent was asked."""

SCHEME_HEADER = b"x-roadlens-scheme"
"""How the parent was asked: `http`, `https`, `ws` or `wss`."""
