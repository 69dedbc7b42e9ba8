"""Errors that are addressed to the user: what is wrong, where, and what to do next.

The command line prints them without a traceback and exits with status 2. Everything else that is raised is a
defect of ours and keeps its traceback.
"""


class UserError(ValueError):
    """A problem that the user can mend; the message names the value, its origin and the remedy."""


class ConfigError(UserError):
    """A config key, a value, or an experiment folder is wrong."""


class DataError(UserError):
    """An annotation file, an image or a detections file is missing or broken."""


class WeightsError(UserError):
    """A checkpoint is missing, unreadable, or does not fit the model."""


class TrainingError(UserError):
    """Training cannot go on: the loss is not finite, or too much of the data is unreadable."""


class StorageError(UserError):
    """A file cannot be written: the disk is full or broken, or the folder may not be written to."""


class DownloadError(UserError):
    """A file cannot be fetched: no network, a refusal of the server, or content that is not what was published."""
