"""What every builder gives back: rows to run on, and the exports of one architecture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Export = Callable[[Path], None]


@dataclass(frozen=True)
class Built:
    """Args:
    inputs: a fixed batch, one array [N, ...] for each input of the model, in order.
    exports: what writes the file, by the export's name; raises where the exporter cannot.
    """

    inputs: Sequence[np.ndarray]
    exports: dict[str, Export]
