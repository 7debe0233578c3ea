"""The exception for problems that the user can solve."""

# A message that quotes a damaged file may be long; its beginning names the file, its end says what
# was expected.
_LONGEST, _KEPT_END = 600, 150


class InputError(ValueError):
    """Invalid input: a file, a data set, a setting or an argument that the user can correct.

    The command line prints its message as one line and exits with 2. Every other exception is a
    bug and keeps its traceback. Characters of the input that a terminal would obey instead of
    printing them are escaped, and a long quotation is cut in its middle.
    """

    def __init__(self, message: object = "") -> None:
        text = "".join(
            one if one.isprintable() else one.encode("unicode_escape").decode()
            for one in str(message)
        )
        if len(text) > _LONGEST:
            text = f"{text[: _LONGEST - _KEPT_END]} ... {text[-_KEPT_END:]}"
        super().__init__(text)


def one_line(error: Exception) -> str:
    """The message of an error in one line, without the number that Python puts before it.

    What is neither an InputError nor an OSError is a fault of the code, and named by its type.
    """
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    elif not isinstance(error, InputError | OSError):
        text = f"{type(error).__name__}: {text}"
    return " ".join(text.split())
