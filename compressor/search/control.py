"""The control: magnitude pruning of the dense model to the size of the chosen point, at once or step by step."""

import torch
from torch import Tensor

from compressor.graph.module import OnnxModule
from compressor.search.work import Setting
from compressor.selection.magnitude import cubic_sparsity, magnitude_masks
from compressor.training.fit import OnStep, fine_tune, gradual_training

# Of the step size of the fit; magnitude pruning keeps the dense weights, which larger steps would only disturb.
GRADUAL_PART = 0.2


def train_control(setting: Setting, module: OnnxModule, nnz: int, epochs: int, step_size: float, on_step: OnStep) -> None:
    """Prunes the dense tensors that `module` holds, and trains what is left, by the configured control.

    Args:
        nnz: nonzeros that are left in those of two or more dimensions.
        epochs: of fine-tuning, for `quick`; of the whole gradual training for `full`.
    """
    weights: dict[str, Tensor] = {name: module.tensors()[name] for name in module.weight_names}
    others = sum(int(t.count_nonzero()) for name, t in module.tensors().items() if t.ndim >= 2 and name not in weights)
    left = max(0, nnz - others)
    options = setting.fine_tune_options(epochs, step_size)
    if setting.config.control == "quick":
        fine_tune(module, magnitude_masks(weights, left), setting.objective, setting.baseline.train, options, on_step)
        return
    total = sum(weight.numel() for weight in weights.values())

    def masks_at(part: float) -> dict[str, Tensor]:
        with torch.no_grad():
            return magnitude_masks(weights, round(total * (1.0 - cubic_sparsity(part, 1.0 - left / total))))

    gradual_training(module, masks_at, setting.objective, setting.baseline.train, options, on_step)
