"""Mistakes that a user can mend."""


class UserError(Exception):
    """A call that cannot be carried out; the message is one line and says what to do."""


class CheckpointError(ValueError, UserError):
    """A checkpoint that cannot be used as asked; the message is one line, names it and says why."""


def one_line(error: BaseException, most: int = 300) -> str:
    """What an error says, in one line of so many characters at most; its kind if it says nothing.

    Example:
        >>> one_line(ValueError("no such   thing")), one_line(KeyError())
        ('no such thing', 'KeyError')
    """
    return " ".join(str(error).split())[:most] or type(error).__name__
