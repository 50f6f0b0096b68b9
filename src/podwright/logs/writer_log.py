"""What the writer has open of one container: its settings, its FIFOs and its log.

Standard library only, as the writer's process is kept small.
"""

from __future__ import annotations

import json
import os

from podwright.logs.limits import Limits
from podwright.logs.writer_files import LogFile, Nowhere
from podwright.logs.writer_listeners import Listener
from podwright.logs.writer_sources import Glance, Records, Stream

SETTINGS = "settings.json"


class Log:
    """What is open of one container."""

    def __init__(self, directory: str, glance: Glance) -> None:
        """Raises OSError, ValueError when the directory cannot be used."""
        with open(os.path.join(directory, SETTINGS), "rb") as file:
            settings = json.load(file)
        self.directory = directory
        limits, path = Limits(**settings["limits"]), settings["path"]
        if not path and not settings["raw"]:
            raise ValueError("records want a file")
        self.sources: list[Records | Stream] = []
        self.watchers: list[Listener] = []
        """Who wants to know of its end."""
        self.hurried = False
        """It is to end soon, whoever does not read."""
        self.file: LogFile | Nowhere = LogFile(path, limits) if path else Nowhere(limits)
        try:
            if settings["raw"]:
                for name in ("stdout", "stderr"):
                    if os.path.exists(fifo := os.path.join(directory, name)):
                        self.sources.append(Stream(fifo, glance, name, self.file))
            elif isinstance(self.file, LogFile):
                self.sources.append(Records(os.path.join(directory, "log"), glance, self.file))
        except BaseException:
            self.let_go()
            raise

    def streams(self) -> list[Stream]:
        return [each for each in self.sources if isinstance(each, Stream)]

    def let_go(self) -> None:
        for source in self.sources:
            source.finish()
            os.close(source.fd)
        self.sources = []
        self.file.close()
