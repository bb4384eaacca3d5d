"""The commands `roadlens models …` and `roadlens engines …`."""
