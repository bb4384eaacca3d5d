"""The faces of the data sets of the house, a module each; see `training.data.sets`."""
