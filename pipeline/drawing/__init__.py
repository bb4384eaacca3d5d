"""What is drawn on pictures or blurred in them."""
