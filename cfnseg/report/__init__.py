"""Reports: report.json, report.md and report.html, built from what an evaluation counted, never recomputed."""
