"""The forms in which labelled pictures are written, those of the tools that people label with and train by."""
