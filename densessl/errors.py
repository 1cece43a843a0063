"""The one exception that a user's own mistake raises."""


class UserError(Exception):
    """Something the user can mend. Tools print it without a stack trace and exit with code 2.

    Args:
        problem: What is wrong, naming the value and where it came from.
        remedy: What to do about it.
    """

    def __init__(self, problem: str, remedy: str = ""):
        if problem.startswith("Caught UserError in DataLoader worker"):
            # A worker hands an error on as one text with its traceback: back to the message.
            text = problem.rpartition("densessl.errors.UserError: ")[2].rstrip()
            problem, _, remedy = text.partition("\nWhat to do: ")
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}\nWhat to do: {self.remedy}" if self.remedy else self.problem
