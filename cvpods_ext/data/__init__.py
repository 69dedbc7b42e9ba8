"""From annotation files and images to batches: catalog, cache, statistics, transforms, sampling, loading."""
