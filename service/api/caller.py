"""Who asks. Rows and files belong to an owner, and no route shows another's."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends

# The owner of everything where the service asks for no keys.
LOCAL = "local"


@dataclass(frozen=True)
class Caller:
    owner: str


def get_caller() -> Caller:
    return Caller(LOCAL)


CallerDep = Annotated[Caller, Depends(get_caller)]
