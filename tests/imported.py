"""What a command imports before it begins; `tests.processes` forks from a process that has it."""

import cfnseg.commands
import cfnseg.doctor
import cfnseg.inference.image_files
import cfnseg.lab.encodings
import cfnseg.report.comparison
import cfnseg.workflows  # noqa: F401
