"""Anybody's labelled pictures: one reader for looking a folder over (`roadlens data`), for training and for scoring."""
