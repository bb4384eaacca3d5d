"""Footage in: an address becomes a source, a source yields frames."""
