"""What may go wrong with training."""

from chatserver.kernel.errors import DomainError, ErrorKind


class TrainingJobNotFoundError(DomainError):
    kind = ErrorKind.NOT_FOUND
    code = "training.not_found"
    title = "There is no such training job."
