"""Keeps `datasets` off the network and silent while a file of a stranger is read."""

from collections.abc import Iterator
from contextlib import contextmanager

import datasets
import datasets.config
import datasets.utils.logging
import huggingface_hub.constants


@contextmanager
def offline() -> Iterator[None]:
    """Switches the network access and the progress bars of `datasets` off, and afterwards back to what they were.

    The variables HF_HUB_OFFLINE and HF_DATASETS_OFFLINE do the same, but only before the first import; whoever starts the trainer
    sets them in its environment as a second wall. The library must not rely on that, nor change the settings of a program
    that calls it for good, so the constants that these variables are read into are set instead.
    """
    hub, library = huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    level, bars = datasets.utils.logging.get_verbosity(), datasets.are_progress_bars_disabled()
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    datasets.config.HF_HUB_OFFLINE = True
    # Its error records repeat text of the file and paths of this machine; what matters is raised as well.
    datasets.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = hub
        datasets.config.HF_HUB_OFFLINE = library
        datasets.utils.logging.set_verbosity(level)
        if not bars:
            datasets.enable_progress_bars()
