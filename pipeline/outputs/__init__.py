"""Pictures out: video files, clips of events, snapshots."""
