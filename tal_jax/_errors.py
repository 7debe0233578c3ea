"""The exception for problems that the user can solve."""


class InputError(ValueError):
    """Invalid input: a file, a data set, a setting or an argument that the user can correct.

    The command line prints its message as one line and exits with 2. Every other exception is a
    bug and keeps its traceback.
    """
