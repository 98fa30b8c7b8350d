"""Why a file is refused."""

from typing import Final

from chatserver.kernel.errors import DomainError, ErrorKind


class FileNotFoundInStoreError(DomainError):
    """Unknown, deleted, another client's, or nothing that the caller may see: one answer."""

    kind = ErrorKind.NOT_FOUND
    code = "file.not_found"
    title = "There is no such file."


class FileNotReadyError(DomainError):
    """Not uploaded yet, still being checked, or refused by the check: `state` says which."""

    kind = ErrorKind.CONFLICT
    code = "file.not_ready"
    title = "The file can't be used yet."


class FileTooLargeError(DomainError):
    kind = ErrorKind.TOO_LARGE
    code = "file.too_large"
    title = "The file is too large."


class FileTypeError(DomainError):
    """The type is one that can't be checked: send it as `application/octet-stream`."""

    kind = ErrorKind.INVALID
    code = "file.unsupported"
    title = "Files of this type are not taken."


FOUND: Final = (FileNotFoundInStoreError,)
ATTACHED: Final = (FileNotFoundInStoreError, FileNotReadyError)
