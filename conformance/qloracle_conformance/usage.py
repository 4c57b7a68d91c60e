"""The error of a command that was given something it cannot do."""

from qloracle.errors import QloracleError


class UsageError(QloracleError):
    """The command was given something that makes no run."""
