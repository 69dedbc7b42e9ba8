"""Networks and their losses: what an experiment's net.py is assembled from."""
