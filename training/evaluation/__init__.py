"""Scoring models on a split: from a checkpoint, an exported file or a bundled name to a result with its intervals."""
