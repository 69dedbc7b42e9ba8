"""LVIS in a box: a small long-tailed data set of drawn pictures."""
