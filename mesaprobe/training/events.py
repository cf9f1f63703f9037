"""history.jsonl as TensorBoard event files: the same numbers, one scalar series a column, step by step."""

import shutil
from pathlib import Path

from tensorboardX import SummaryWriter

from mesaprobe.files import read_json_lines
from mesaprobe.training.loop import HISTORY_FILE

EVENTS_FOLDER = "events"


class EventLog:
    """Event files of one run in its folder `events`, written anew from the first row on."""

    def __init__(self, run: Path) -> None:
        self._run, self._written = run, 0
        shutil.rmtree(run / EVENTS_FOLDER, ignore_errors=True)  # an interrupted run's rows would stand there twice
        self._writer = SummaryWriter(str(run / EVENTS_FOLDER))

    def update(self) -> None:
        """Append the rows of history.jsonl that are not written yet."""
        history = self._run / HISTORY_FILE
        rows = read_json_lines(history) if history.is_file() else []
        for row in rows[self._written :]:
            for name, value in row.items():
                if name != "step" and isinstance(value, int | float):
                    self._writer.add_scalar(name, value, row["step"])
        self._written = len(rows)
        self._writer.flush()

    def close(self) -> None:
        """Append what is left and end the file."""
        self.update()
        self._writer.close()
