"""Pictures as the decoder left them, in host or GPU memory: planes, colours, conversions, model inputs."""
