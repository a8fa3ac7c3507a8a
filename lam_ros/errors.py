"""The one family of errors: each message says what was found, what was expected, and the cure."""


class LamError(Exception):
    """Something the user can put right; the command line prints the message without a traceback."""


class ConfigError(LamError):
    """A robot, policy or training file that cannot be used."""


class ContractError(LamError):
    """An array, message or checkpoint that does not fit the robot it is used with."""


class ImageError(LamError):
    """An image message that cannot be turned into RGB."""


class EpisodeError(LamError):
    """An episode that cannot be written, read or verified."""


class CheckpointError(LamError):
    """A checkpoint file that cannot be read."""


class TrainingError(LamError):
    """Demonstrations or settings that nothing can be learned from."""


class SimulationError(LamError):
    """The embedded simulator cannot do what was asked."""


class BringUpError(LamError):
    """A node could not be started, or died."""


class LimitError(LamError):
    """A motion that would leave its limits; it is not sent."""
