"""Errors that a user can fix."""


class UserError(Exception):
    """A call that cannot be carried out. The message is one line and says what to do."""


class CheckpointError(ValueError, UserError):
    """A checkpoint that cannot be used as asked. The message is one line that names it and says why."""


def one_line(error: BaseException, most: int = 300) -> str:
    """The message of an error as one line of limited length, or its type if it has no message.

    Example:
        >>> one_line(ValueError("no such   thing")), one_line(KeyError())
        ('no such thing', 'KeyError')
    """
    return " ".join(str(error).split())[:most] or type(error).__name__
