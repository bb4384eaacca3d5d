"""From predictions to an analysis: boxes, components, tracks, smoothing."""
