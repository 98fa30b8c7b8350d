"""What can stop `chatserver dev`: each message is one sentence for the person at the console."""


class DevError(Exception):
    """Says what is wrong and how to mend it; shown as it is, without a stack trace."""


class DataDirectoryError(DevError):
    pass


class DirectoryInUseError(DataDirectoryError):
    pass


class HalfInitialisedError(DataDirectoryError):
    pass


class ServerStartError(DevError):
    pass


class PortTakenError(DevError):
    pass


class DemoError(DevError):
    pass
