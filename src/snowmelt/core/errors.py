"""How does snowmelt say that something is wrong? All exception classes live here.

    SnowmeltError                  anything snowmelt raises on purpose
    └── UserError (ValueError)     the user's mistake or bad input: one line, exit code 2
        ├── AudioError             a sound file, a stream of samples
        ├── DataError              a corpus, a cut, a manifest, a transcript
        ├── CheckpointError        a checkpoint or weights file
        ├── ConfigError            an option, a configuration file
        ├── TrainingError          a run that cannot go on: its numbers, its memory
        └── MissingExtraError      an optional dependency that is not installed

Invariant: the text of a UserError is always one line, whatever was put into it.
"""

__all__ = [
    "AudioError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "MissingExtraError",
    "SnowmeltError",
    "TrainingError",
    "UserError",
]


class SnowmeltError(Exception):
    """Base of everything snowmelt raises on purpose."""


class UserError(SnowmeltError, ValueError):
    """The user's mistake or bad input: what was wrong, and the next step.

    Args:
        message: what was wrong, with the offending value or file.
        hint: what would be right or what to do next; empty when there is nothing to add.

    Example:
        >>> print(UserError("features must be (N, T, 80), got (80, 512)", "features[None]"))
        features must be (N, T, 80), got (80, 512) (hint: features[None])
    """

    def __init__(self, message: str, hint: str = "") -> None:
        # Both go into args: the exception then survives pickling between processes.
        super().__init__(message, hint)
        self.message = _one_line(message)
        self.hint = _one_line(hint)

    def __str__(self) -> str:
        return f"{self.message} (hint: {self.hint})" if self.hint else self.message


class AudioError(UserError):
    """A sound file or a stream of samples cannot be used."""


class DataError(UserError):
    """A corpus, a cut, a manifest or a transcript cannot be used."""


class CheckpointError(UserError):
    """A checkpoint or weights file cannot be used."""


class ConfigError(UserError):
    """An option or a configuration file cannot be used."""


class TrainingError(UserError):
    """A training run cannot go on: what it computes is not finite, or does not fit in memory."""


class MissingExtraError(UserError):
    """An optional dependency is not installed; the hint names the extra to install."""


def _one_line(text: str) -> str:
    return " ".join(text.split())
