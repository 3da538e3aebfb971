"""A trained model as one file for other programs, and as a page of a hub."""
