"""Encoders, parts, fusions and the models made of them."""
