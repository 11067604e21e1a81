"""Errors that the person at the keyboard can mend.

A `UserError` says in one line what is wrong, where, and what to do about it. Commands print
that line and exit with code 2. Wrong arguments of a library function stay `ValueError`.
"""


class UserError(Exception):
    """Something outside the program is wrong: `what`, `where` it was met, and the `remedy`."""

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(what, where, remedy)

    def __str__(self) -> str:
        location = f"{self.where}: " if self.where else ""
        advice = f" -> {self.remedy}" if self.remedy else ""
        return " ".join(f"{location}{self.what}{advice}".split())


class RankError(UserError):
    """What one process of several met alone: each says it for itself, not the first for all."""
