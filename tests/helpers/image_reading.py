"""Reads an image in the process of `limited`, which passes one text per call."""

from pathlib import Path

from cvpods_ext.data import images


def read_named(text):
    """Read the image of "path|height|width"."""
    path, height, width = text.split("|")
    return tuple(images.read(Path(path), (int(height), int(width)), 17).shape)
