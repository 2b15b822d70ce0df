"""Errors that a user can act on; the command line prints them without a traceback."""


class HepipeError(Exception):
    """An error with a message for the user: the thing, what was found, what was expected, what to do."""


class ConfigError(HepipeError):
    """The configuration or the slide sheet is wrong; nothing has run yet."""


class SlideError(HepipeError):
    """A slide cannot be used. The reason never holds a file name, a path or text from the file.

    Attributes:
        slide_id: Which slide, as `<case>-he` or `<case>-ihc`.
        reason: What is wrong and what to do.
    """

    def __init__(self, slide_id: str, reason: str) -> None:
        super().__init__(f"slide {slide_id}: {reason}")
        self.slide_id = slide_id
        self.reason = reason


class PixelError(SlideError):
    """Some pixels of a slide do not decode; others may."""


class RegistrationError(HepipeError):
    """A pair cannot be registered.

    Attributes:
        case_id: Which pair.
        reason: What is wrong and what to do.
    """

    def __init__(self, case_id: str, reason: str) -> None:
        super().__init__(f"case {case_id}: {reason}")
        self.case_id = case_id
        self.reason = reason


class StoreError(HepipeError):
    """An artefact on disk is missing, incomplete or not what its name says."""


class WeightsError(HepipeError):
    """A weights file is missing, has the wrong hash or the wrong tensors."""


class HepipeWarning(UserWarning):
    """Something the user should know that stops nothing."""
