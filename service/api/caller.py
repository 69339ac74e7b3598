"""Who asks. Rows and files belong to an owner, and no route shows another's."""

from dataclasses import asdict, dataclass
from typing import Annotated

from fastapi import Depends, Request

from service.jobs.quotas.quota import NO_QUOTAS, Quotas
from service.keys.key import Scope
from service.settings import Settings


@dataclass(frozen=True)
class Caller:
    """`quotas` are those of the key, and the defaults of the settings where it has none."""

    owner: str
    scope: Scope
    quotas: Quotas = NO_QUOTAS

    @property
    def sees(self) -> str | None:
        """Whose rows are shown; None: everybody's."""
        return None if self.scope is Scope.ADMIN else self.owner

    def limit(self, settings: Settings) -> Settings:
        """The settings with this caller's quotas in place of the defaults."""
        return settings.model_copy(update={name: limit for name, limit in asdict(self.quotas).items() if limit is not None})


def get_caller(request: Request) -> Caller:
    """Whom `authentication` has found out; a route that it does not stand before has none."""
    caller: Caller = request.state.caller
    return caller


CallerDep = Annotated[Caller, Depends(get_caller)]
