"""The names of two of torchvision's operators, for where its own are missing; imported after `import torchvision` has failed.

Its wheel on PyPI is linked against CUDA, so that beside the CPU build of torch none of its operators loads, and the import fails with
"operator torchvision::nms does not exist". Nothing here calls one.
"""

import torch

_LIBRARY = torch.library.Library("torchvision", "DEF")  # the names live as long as it
_LIBRARY.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
_LIBRARY.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
