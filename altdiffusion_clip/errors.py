"""Mistakes that a user can mend."""


class UserError(Exception):
    """A call that cannot be carried out; the message is one line and says what to do."""
