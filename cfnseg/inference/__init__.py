"""From an image to a mask: the only way."""
