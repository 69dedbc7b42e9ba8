"""Finding errors in training: the dumped step, its replay, profiles."""
