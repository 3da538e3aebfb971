"""Scores of label maps: numpy in, plain numbers out."""
