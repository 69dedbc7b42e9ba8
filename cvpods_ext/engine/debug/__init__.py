"""Finding what went wrong: the dumped step, its replay, profiles."""
