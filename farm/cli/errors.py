"""Errors that end a command with one line."""


class UsageError(Exception):
    """What was asked cannot be done; the message says what to do. Exit status 2."""
