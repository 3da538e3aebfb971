"""Measurements: ablations, cost, speed, and encoders over the stages of a frozen net."""
