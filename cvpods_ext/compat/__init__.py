"""The door for old project folders: folders written for cvpods run as they are, on our modules."""
