"""What was: a day of each stream in memory, and its files on disk."""
