"""What a command imports before it begins; `tests.processes` forks from a process that has it."""

import cfnseg.tasks  # noqa: F401
