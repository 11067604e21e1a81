"""Errors that a user can repair.

A `UserError` is one line: what is wrong, where, and the remedy. Commands print it and exit with
code 2. Wrong arguments of a library function raise `ValueError`.
"""


class UserError(Exception):
    """An error outside the program: `what`, `where`, and the `remedy`."""

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(what, where, remedy)

    def __str__(self) -> str:
        location = f"{self.where}: " if self.where else ""
        advice = f" -> {self.remedy}" if self.remedy else ""
        return " ".join(f"{location}{self.what}{advice}".split())


class RankError(UserError):
    """An error of one process of several; that process prints it itself."""
