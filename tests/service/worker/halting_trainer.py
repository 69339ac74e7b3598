"""The real trainer, which stops dead (SIGSTOP) once, at the moment that is asked for: halting_trainer.py MOMENT MARKER WORKDIR.

A moment is a phase, just entered, or `result`, when the last line has been written and the process has not ended. The file MARKER
appears then; where it exists already, nothing is stopped.
"""

import os
import signal
import sys
from pathlib import Path

from pydantic import BaseModel

from compressor import trainer
from compressor.protocol import Progress


def main() -> int:
    moment, marker, *arguments = sys.argv[1:]
    claim_stdout = trainer._claim_stdout

    def claim_stdout_to_halt() -> trainer.Emit:
        emit = claim_stdout()

        def emit_then_halt(line: BaseModel) -> None:
            emit(line)
            if moment == (line.phase if isinstance(line, Progress) else getattr(line, "type", None)) and not Path(marker).exists():
                Path(marker).touch()
                os.kill(os.getpid(), signal.SIGSTOP)

        return emit_then_halt

    trainer._claim_stdout = claim_stdout_to_halt
    return trainer.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
