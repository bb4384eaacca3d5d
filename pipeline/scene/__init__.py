"""The synthetic drive: a street drawn with the exact class of every pixel."""
