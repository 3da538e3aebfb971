"""Mistakes that a user can mend."""


class UserError(Exception):
    """One clear line for the user, printed without a traceback.

    Args:
        message: names the file, the value, what was expected and what to do.
        code: the exit status: 2 for wrong usage, 1 for work that failed.
    """

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its kind if it has none: libraries add pages of advice below."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
