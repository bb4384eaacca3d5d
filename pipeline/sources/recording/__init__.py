"""What a recording says of itself beside its pictures and its sound."""
