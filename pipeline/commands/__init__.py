"""The commands: what each takes, and what a person sees of it on a terminal."""
