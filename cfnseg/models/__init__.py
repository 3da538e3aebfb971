"""Encoders, branches, fusions and the networks made of them."""
