"""How unlike the pictures that a model was trained on a picture is, by what the model says of it."""
