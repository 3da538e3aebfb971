"""Scores of class maps and rankings: numpy in, plain numbers out."""
