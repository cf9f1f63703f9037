"""The one exception that ends a command with one sentence and exit code 2."""


class UserError(ValueError):
    """Something a person can cause and mend: a wrong option, a broken file, a full disk.

    The message is one sentence that names what was wrong and what would be right. The command line
    prints it without a traceback and exits with code 2.
    """
