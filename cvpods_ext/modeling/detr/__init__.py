"""DETR-like detectors: queries that attend to image tokens, matched one to one with the objects."""
