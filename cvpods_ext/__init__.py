"""Long-tailed detection and instance segmentation in self-contained experiment folders."""

__version__ = "0.1.0"
