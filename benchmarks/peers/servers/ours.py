"""``python ours.py FILE.edgepack PORT``: the agent's HTTP door, one model, every row counted."""

from __future__ import annotations

import signal
import sys

from edge_agent import Model
from edge_agent.doors.http import HttpDoor
from edge_agent.doors.http.door import HttpConfig
from edge_agent.live import Live
from edge_agent.telemetry.window import Window

if __name__ == "__main__":
    model = Model.open(sys.argv[1])
    model.observer = Window(model.manifest, model.profile)
    name = model.manifest.name
    HttpDoor(HttpConfig(port=int(sys.argv[2])), {name: Live(name, model)}, version="1")
    signal.pause()
