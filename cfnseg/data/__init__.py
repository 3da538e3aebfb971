"""Data sets, label maps, transforms and the loader."""
