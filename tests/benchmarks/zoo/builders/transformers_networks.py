"""Architectures of transformers in a tiny configuration, without pretrained weights; token ids and a mask as inputs."""

try:
    import torchvision  # noqa: F401 -- transformers imports it
except RuntimeError:
    from tests.benchmarks.zoo.builders import torchvision_names  # noqa: F401

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedModel,
)

from tests.benchmarks.zoo.builders.built import Built
from tests.benchmarks.zoo.builders.torch_exports import NUM_ROWS, built

_TOKENS, _LENGTH = 200, 16


class _Logits(nn.Module):
    """The model as a function of two tensors."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


def _built(model: PreTrainedModel) -> Built:
    model.config.use_cache = False
    ids = torch.randint(3, _TOKENS, (NUM_ROWS, _LENGTH))
    lengths = torch.randint(_LENGTH // 2, _LENGTH + 1, (NUM_ROWS, 1))
    mask = (torch.arange(_LENGTH) < lengths).long()
    return built(_Logits(model), torch.where(mask.bool(), ids, 0), mask)


def bert() -> Built:
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    config = BertConfig(vocab_size=_TOKENS, max_position_embeddings=32, num_labels=4, pad_token_id=0, **sizes)
    return _built(BertForSequenceClassification(config))


def gpt2() -> Built:
    """With its language-model head, whose matrix is the table of embeddings."""
    config = GPT2Config(vocab_size=_TOKENS, n_positions=32, n_embd=64, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2)
    return _built(GPT2LMHeadModel(config))


def llama() -> Built:
    """Rotary positions, grouped queries, RMS norms and gated layers."""
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128}
    config = LlamaConfig(vocab_size=_TOKENS, max_position_embeddings=32, num_labels=4, pad_token_id=0, **sizes)
    return _built(LlamaForSequenceClassification(config))
