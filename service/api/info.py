"""GET /v1/info: what this service is and takes, for a pipeline that asks before it sends."""

from typing import get_args

from fastapi import APIRouter

from compressor import __version__
from compressor.config import MAX_OPSET, MIN_OPSET, WEIGHTS_SUFFIX, Format
from compressor.protocol import Kind
from service.api.dependencies import ServicesDep
from service.api.problems import document
from service.api.schemas import Formats, Info, Limits, OpsetRange
from service.api.uploads.framing import NPZ, PARQUET
from service.devices import Device, find_devices
from service.settings import Settings

router = APIRouter(prefix="/v1/info", tags=["description"])


@router.get("", operation_id="get_info", responses=document())
def get_info(services: ServicesDep) -> Info:
    """Version, kinds of jobs, formats, opsets, reference schemes, devices and limits."""
    return to_info(services.settings, find_devices())


def to_info(settings: Settings, devices: list[Device]) -> Info:
    return Info(
        version=__version__,
        kinds=list(get_args(Kind.__value__)),
        devices=devices,
        reference_schemes=["builtin", "file", "id"] if settings.data_roots else ["builtin", "id"],
        opset=OpsetRange(min=MIN_OPSET, max=MAX_OPSET),
        formats=Formats(model=[".onnx", WEIGHTS_SUFFIX], dataset=[PARQUET, NPZ], delivered=list(get_args(Format.__value__))),
        limits=Limits.model_validate(settings, from_attributes=True),
    )
