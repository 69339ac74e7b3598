"""GET /readyz: the service can take and run jobs."""

from fastapi import APIRouter

from service.api.dependencies import ServicesDep
from service.api.problems import NotReady, document
from service.api.schemas import Health

router = APIRouter(tags=["health"])


@router.get("/readyz", operation_id="readyz", responses=document(503))
def readyz(services: ServicesDep) -> Health:
    """Asks the database, the store and the dispatcher; busy workers are no reason not to be ready."""
    for name, check in services.checks.items():
        try:
            check()
        except Exception as error:
            detail = f"The {name} does not answer ({type(error).__name__})."
            raise NotReady(
                detail, param=name, suggestion="Ask again; the service's log has the cause.", headers={"Retry-After": "5"}
            ) from error
    return Health(checks=list(services.checks))
