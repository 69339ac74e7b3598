"""GET /livez: the process answers."""

from fastapi import APIRouter

from service.api.problems import document
from service.api.schemas import Health

router = APIRouter(tags=["health"])


@router.get("/livez", operation_id="livez", responses=document())
async def livez() -> Health:
    return Health()
