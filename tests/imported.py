"""What a command imports before it begins; `tests.processes` forks from a process that has it."""

import cfnseg.workflows  # noqa: F401
