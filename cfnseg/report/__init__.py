"""Reports: built from what an evaluation counted, never recomputed."""
