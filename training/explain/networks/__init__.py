"""Networks as explanations see them: checkpoints, exported graphs, classifiers of torchvision."""
