"""The one kind of error that is the user's to mend."""


class HeadscopeError(Exception):
    """Bad input: a sentence that says what is wrong and what to do about it.

    The command line prints it alone and exits with code 2; anything else that is raised is a bug.
    """
