"""What is to be indexed: clips of folders, cards and stores, and whose they are."""
