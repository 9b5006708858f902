"""The one error that a user is meant to read."""


class RampflowError(Exception):
    """Something that the user can mend: the message names the file, the field and the remedy."""
