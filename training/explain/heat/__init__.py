"""Heat maps: Grad-CAM and its kin, the layers they look at, occlusion and how it is computed fast."""
