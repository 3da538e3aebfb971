"""Comparing systems: a list of configs, trained and scored with seeds, and one table of them."""
