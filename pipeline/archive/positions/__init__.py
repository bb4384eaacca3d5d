"""Where the car was: fixes of a satellite receiver, from the recording itself or a file beside it."""
