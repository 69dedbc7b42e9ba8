"""Starting processes and sharing a model between them."""
