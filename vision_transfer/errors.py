"""The one exception for what a user can mend."""


class UserError(Exception):
    """Something a user can mend: a config value, a file, a folder, a download.

    The message names the field or file, what was found, what is allowed, and what to do. The command line prints
    it without a traceback and exits with status 2. Any other exception is a bug and shows its traceback.
    """
