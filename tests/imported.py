"""What a command imports before it begins; `tests.processes` forks from a process that has it."""

import cfnseg.commands
import cfnseg.doctor
import cfnseg.inference.sources
import cfnseg.lab.encodings
import cfnseg.report.comparison
import cfnseg.workflows  # noqa: F401
