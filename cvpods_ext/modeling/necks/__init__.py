"""Modules that turn a backbone's maps into one pyramid of equal width."""
