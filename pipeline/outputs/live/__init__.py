"""Pictures out to those who watch now: media servers, HLS, recordings, browsers."""
