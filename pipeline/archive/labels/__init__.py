"""Pictures of an archive for people who label and train, the hardest ones first. See `LABELS.md`."""
