"""Weights alone and the name of an architecture: the graph that is built from them computes what timm's model computes."""

import socket
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file

from compressor.architecture import export_architecture, import_timm
from compressor.errors import InvalidConfig, InvalidModel
from compressor.graph.module import OnnxModule
from compressor.graph.validate import parse_model
from compressor.graph.write import float_tensors


def made(name: str, path: Path, **options: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    model: torch.nn.Module = import_timm().create_model(name, pretrained=False, **options)
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d) and part.running_mean is not None and part.running_var is not None:
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    save_file(model.state_dict(), path)
    return model.eval()


@pytest.mark.parametrize(
    ("name", "options", "image_size"),
    [("test_resnet", {"num_classes": 7, "in_chans": 1}, 48), ("test_vit", {"num_classes": 3, "img_size": 64}, 64)],
)
def test_the_exported_graph_is_timms_model(name, options, image_size, tmp_path):
    model = made(name, tmp_path / "weights.safetensors", **options)
    data = export_architecture(tmp_path / "weights.safetensors", name, image_size)
    module = OnnxModule(parse_model(data))
    x = torch.randn(3, options.get("in_chans", 3), image_size, image_size)
    expected = model(x).detach()
    torch.testing.assert_close(module(x).detach(), expected, rtol=1e-4, atol=1e-4)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0], expected, rtol=1e-4, atol=1e-4)
    assert sum(tensor.numel() for tensor in module.tensors().values()) == sum(tensor.numel() for tensor in model.parameters())


def test_half_precision_stays_and_nothing_is_said_of_this_machine(tmp_path):
    model = made("test_resnet", tmp_path / "weights.safetensors", num_classes=5)
    save_file(model.half().state_dict(), tmp_path / "weights.safetensors")
    data = export_architecture(tmp_path / "weights.safetensors", "test_resnet", 48)
    assert b"site-packages" not in data
    assert b"stack_trace" not in data
    proto = parse_model(data)
    kinds = {array.dtype for array in float_tensors(proto).values()}
    assert kinds == {np.dtype(np.float16)}
    x = torch.randn(2, 3, 48, 48)
    torch.testing.assert_close(OnnxModule(proto)(x).detach(), model.float()(x).detach(), rtol=1e-2, atol=1e-2)


def test_a_name_is_never_an_address_or_a_path(tmp_path, monkeypatch):
    made("test_resnet", tmp_path / "weights.safetensors")
    (tmp_path / "config.json").write_text("{}")

    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in ("hf-hub:timm/resnet18", "hf_hub:timm/resnet18", f"local-dir:{tmp_path}", str(tmp_path), "resnet18.a1_in1k:x", ""):
        with pytest.raises(InvalidConfig) as error:
            export_architecture(tmp_path / "weights.safetensors", name, None)
        assert error.value.param == "architecture"
    with pytest.raises(InvalidConfig) as error:
        export_architecture(tmp_path / "weights.safetensors", "resnet1", None)
    assert "resnet18" in str(error.value.suggestion)


def test_tensors_must_be_those_of_the_architecture(tmp_path):
    tensors = made("test_resnet", tmp_path / "weights.safetensors").state_dict()
    name = next(iter(tensors))
    wrong = {
        "lacks 1": {key: value for key, value in tensors.items() if key != name},
        "has besides 1": tensors | {"more": torch.zeros(2)},
        "has in another shape 1": tensors | {name: tensors[name].flatten()},
    }
    for message, changed in wrong.items():
        save_file(changed, tmp_path / "wrong.safetensors")
        with pytest.raises(InvalidModel, match=message):
            export_architecture(tmp_path / "wrong.safetensors", "test_resnet", None)
    save_file(tensors | {name: torch.full_like(tensors[name], float("nan"))}, tmp_path / "wrong.safetensors")
    with pytest.raises(InvalidModel, match="not finite"):
        export_architecture(tmp_path / "wrong.safetensors", "test_resnet", None)


def test_a_damaged_file_is_the_clients_error(tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ...")
    with pytest.raises(InvalidModel):
        export_architecture(tmp_path / "weights.safetensors", "test_resnet", None)


def test_an_image_size_that_does_not_fit_is_the_clients_error(tmp_path):
    made("test_vit", tmp_path / "weights.safetensors", img_size=64)
    with pytest.raises((InvalidConfig, InvalidModel)):
        export_architecture(tmp_path / "weights.safetensors", "test_vit", 96)
