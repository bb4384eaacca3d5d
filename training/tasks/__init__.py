"""The tasks of the house, a module each; nothing lists them, and a recipe names the one it means."""
