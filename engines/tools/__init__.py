"""What is done to a model file away from a stream: quantise, convert, verify, benchmark."""
