"""/v1/config/schema: the options of a run, as a form or an editor needs them."""

import hashlib
import json
from typing import Any

from fastapi import APIRouter, Request, Response

from compressor.config import CompressionConfig
from service.api.conditions import check_conditions, validation_headers
from service.api.problems import document
from service.api.schemas import ConfigSchema

router = APIRouter(prefix="/v1/config", tags=["description"])

MEDIA_TYPE = "application/schema+json"
_CONTENT = json.dumps(CompressionConfig.model_json_schema(), ensure_ascii=False, indent=2).encode()
_ETAG = f'"{hashlib.sha256(_CONTENT).hexdigest()}"'
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A JSON Schema (2020-12) with defaults and descriptions; its ETag changes when an option does.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{ConfigSchema.__name__}"}}},
    },
    304: {"description": "The schema is the one that If-None-Match names."},
    **document(412),
}


@router.head("/schema", include_in_schema=False)
@router.get("/schema", operation_id="get_config_schema", responses=RESPONSES, response_class=Response)
def get_config_schema(request: Request) -> Response:
    """The options of `config`, with their types, limits, defaults and what they mean."""
    return check_conditions(request, _ETAG) or Response(_CONTENT, headers=validation_headers(_ETAG), media_type=MEDIA_TYPE)
