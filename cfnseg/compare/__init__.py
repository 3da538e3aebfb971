"""Two scored runs on the same images: which is better, is it more than chance, where, and what was set differently."""
