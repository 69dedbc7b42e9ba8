"""Running an experiment: processes, the training loop, checkpoints, inference."""
