"""Errors of modules that are not about an argument."""

from qloracle.errors import QloracleError


class MergeStateError(QloracleError, RuntimeError):
    """What was asked for is not possible while the adapter is, or is not, merged into its weight."""


class AdapterFileError(QloracleError, ValueError):
    """The files of an adapter are missing, corrupt, or do not fit the model."""


class UnsupportedModuleError(QloracleError, TypeError):
    """A module was selected that no adapter or quantized layer can stand for."""
