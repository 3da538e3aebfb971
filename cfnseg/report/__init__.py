"""Reports: report.json, report.md and report.html from counts of an evaluation."""
