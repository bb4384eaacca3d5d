"""The training loop: batches by step, the learning rate, the learner, the run and its files."""
