"""Models that others exported, made into model files of the house: `roadlens models import` (IMPORT.md)."""
