"""Mistakes that a user can mend."""


class UserError(Exception):
    """A call that cannot be carried out; the message is one line and says what to do."""


class CheckpointError(ValueError, UserError):
    """A checkpoint that cannot be used as asked; the message is one line, names it and says why."""
