"""The R-CNN family: proposals, heads, post-processing, and how they are put together."""
