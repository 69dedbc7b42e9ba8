"""Annotation files as memory-mapped Arrow: the one reader of COCO and LVIS jsons."""
