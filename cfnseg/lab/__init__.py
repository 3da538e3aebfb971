"""Measurements: ablation, cost, speed, encodings of inner layers. No other room imports this one."""
