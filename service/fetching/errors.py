"""How fetching ends a job: each says which reference it was, never what lies behind the host's name."""

from typing import ClassVar

from compressor.errors import ClientError


class ReferenceRefused(ClientError):
    """The reference, or a redirect from it, leads to where the service does not go."""

    code: ClassVar[str] = "reference_refused"
    title: ClassVar[str] = "The reference leads to where the service does not go"


class ReferenceUnreachable(ClientError):
    """`transient` where another attempt may find it."""

    code: ClassVar[str] = "reference_unreachable"
    title: ClassVar[str] = "The file that a reference names could not be fetched"

    def __init__(self, detail: str, *, param: str, suggestion: str, transient: bool) -> None:
        super().__init__(detail, param=param, suggestion=suggestion)
        self.transient = transient


class ReferenceTooLarge(ClientError):
    code: ClassVar[str] = "reference_too_large"
    title: ClassVar[str] = "The file that a reference names exceeds a size limit"
