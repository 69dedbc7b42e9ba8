"""Feature extractors: image -> list of maps, fine to coarse."""
