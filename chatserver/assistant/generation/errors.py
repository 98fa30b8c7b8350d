"""Why an answer is refused. What fails while it is made is its `error_message`, no refusal."""

from typing import Final

from chatserver.kernel.errors import DomainError, ErrorKind


class AnswerNotFoundError(DomainError):
    """Unknown, another client's, in a room that is not the caller's, or no answer at all."""

    kind = ErrorKind.NOT_FOUND
    code = "assistant.not_found"
    title = "There is no such answer."


class AssistantBusyError(DomainError):
    """An answer is under way there already, or the client has as many as it may."""

    kind = ErrorKind.IN_PROGRESS
    code = "assistant.busy"
    title = "An answer is still being written. Wait for it or cancel it."


class NothingToResumeError(DomainError):
    kind = ErrorKind.CONFLICT
    code = "assistant.nothing_to_resume"
    title = "Only an answer that failed or was cancelled can be resumed."


class SourcesGoneError(DomainError):
    """What the answer was made from has been deleted since: ask again."""

    kind = ErrorKind.GONE
    code = "assistant.sources_gone"
    title = "The sources of this answer are gone. Ask again."


STREAM_ERRORS: Final = (AnswerNotFoundError,)
