"""What was seen in one frame, carried by the picture's motion to frames that no model looked at."""
