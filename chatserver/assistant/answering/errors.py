"""Why an answer failed. These end in the row of the generation, never in a door."""


class AnswerFailedError(Exception):
    """The provider gave up. `code` is stable and stands in the row, `message` is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
