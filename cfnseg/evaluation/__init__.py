"""Inference over a split, and what is counted."""
