"""What leaves the pipeline as messages: over ZeroMQ, as JSON lines, in MCAP recordings, and read back."""
