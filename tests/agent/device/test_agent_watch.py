"""An agent with a watched folder: what comes before there is a model waits, all is counted."""

from __future__ import annotations

import json
from pathlib import Path

ROW = {"temp": 1.0, "hum": 0.2, "rpm": 0.1, "volt": 1.0}


def test_files_are_answered_by_what_is_installed_and_counted(
    world, tiny_bundle, tmp_path: Path
) -> None:
    device = world.device
    device.set(watch={"folder": "in", "model": "pump", "settle_s": 0.1, "poll_s": 0.05})
    folder = device.path.parent / "in"
    with device.agent() as agent:
        (folder / "early.json").write_text(json.dumps(ROW))
        world.publisher.publish(tiny_bundle("1.0"))
        device.wait_at("1.0")
        told = folder / "done" / "early.json.json"
        world.until(told.exists, "the answer to the file that waited")
        said = json.loads(told.read_text())
        assert (said["version"], said["predictions"][0]["label"]) == ("1.0", "bad")
        assert said["predictions"][0]["id"], "a label can come later, as for any answer"
        (folder / "bad.json").write_text("{}")
        world.until((folder / "failed" / "bad.json").exists, "the refusal")
        assert agent.status().requests["pump"][0] == 1
    with device.agent():
        (folder / "late.csv").write_text("temp,hum,rpm,volt\n1,0.2,0.1,1\n1,0.2,0.1,1\n")
        world.until((folder / "done" / "late.csv").exists, "the answer after a new start")
    assert not [path for path in folder.iterdir() if path.is_file()]
