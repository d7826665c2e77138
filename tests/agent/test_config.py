"""``agent.toml``: one frozen struct, or every fault in it at once."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge_agent import config as configs
from edge_agent.cli import app
from edge_agent.config import PASSWORD_VARIABLE, Config
from edge_agent.settings import Broker, Download, Http, Identity, Telemetry, Update, Watch
from edge_agent.steps import TrialRules
from edge_contract.errors import InputFault

GOOD = """
[agent]
device = "pi1"
models = ["pump"]
fleet = "home"
[broker]
url = "mqtt://u@localhost"
"""


def load(tmp_path: Path, text: str, **environment: str) -> Config:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    return configs.load(path, environment)


def faults(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(InputFault) as caught:
        load(tmp_path, text)
    first, *rest = caught.value.what.splitlines()
    assert f"has {len(rest)} fault" in first
    return [line.removeprefix("  - ") for line in rest]


def test_a_short_file_is_filled_with_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD)
    assert config.agent.models == ("pump",)
    assert config.folder == Path("/var/lib/edge-agent")
    assert config.agent.channel == "stable"
    assert config.topics.root == "edge/1/home"
    assert config.broker_url.port == 1883
    assert config.rules.trial.requests == 100


def test_the_example_is_complete_valid_and_shows_the_defaults(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "agent" / "agent.example.toml"
    text = example.read_text()
    assert CliRunner().invoke(app, ["settings"]).output == text
    config = load(tmp_path, text)
    short = load(tmp_path, GOOD)
    assert (config.telemetry, config.trial, config.update, config.download) == (
        short.telemetry, short.trial, short.update, short.download,
    )  # fmt: skip
    kinds = (Identity, Broker, Telemetry, Update, TrialRules, Download, Http, Watch)
    for kind in kinds:
        for name in kind.__struct_fields__:
            assert f"\n{name} =" in text or f"\n# {name} =" in text, name


def test_every_fault_is_reported_at_once(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        """
        modles = ["a"]
        [agent]
        models = ["a b", 3]
        device = "a/b"
        flet = "home"
        [broker]
        url = "http://localhost"
        key = "x.pem"
        port = 1883
        [telemetry]
        window_s = "five"
        [trial]
        requests = 0
        max_error_rate = 1.5
        [update]
        backoff_min_s = 100
        backoff_max_s = 10
        [udpate]
        """,
    )
    for expected in (
        "unknown setting 'modles'",
        "unknown setting 'udpate'; did you mean 'update'?",
        "[agent] models = ['a b', 3]",
        "[agent] device = 'a/b': expected 1 to 64 letters",
        "[agent] unknown setting 'flet'; did you mean 'fleet'?",
        "[agent] fleet is missing",
        "[broker] url: broker URL has scheme 'http'",
        "[broker] key without cert",
        "[broker] key: no such file",
        "[broker] unknown setting 'port'",
        "[telemetry] window_s = 'five'",
        "[trial] requests = 0: Expected `int` >= 1",
        "[trial] max_error_rate = 1.5",
        "[update] backoff_min_s is over backoff_max_s",
    ):
        assert any(line.startswith(expected) for line in found), (expected, found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("= 3", "not TOML"),
        ("", "[agent] device is missing"),
        ("agent = 3\n[broker]\nurl='mqtt://x'", "[agent]: expected a table, got int"),
        (GOOD + "ca = 'x.pem'", "[broker] ca or cert without TLS"),
        (GOOD.replace("mqtt:", "mqtts:") + "ca = 'x.pem'", "[broker] ca: no such file"),
        (GOOD + "[trial]\nseconds = 5000", "[trial] seconds is over deadline_s"),
        (GOOD.replace('["pump"]', '["a", "a"]'), "[agent] models names a model twice"),
        (GOOD.replace('"home"', '"home"\nprefix = "a/b/c"'), "[agent] prefix: topic prefix"),
        (GOOD + "password_file = 'nowhere'", "[broker] password_file: cannot read"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, said: str) -> None:
    assert any(line.startswith(said) for line in faults(tmp_path, text))


def test_a_missing_file_is_a_clear_fault(tmp_path: Path) -> None:
    with pytest.raises(InputFault, match="no settings at"):
        configs.load(tmp_path / "nowhere.toml", {})


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("geheim\n")
    text = GOOD.replace('"home"', '"home"\nfolder = "state"') + "password_file = 'secret'"
    config = load(tmp_path, text)
    assert config.folder == tmp_path / "state"
    assert config.broker_url.password == "geheim"


def test_the_password_comes_from_the_environment_first_and_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from file")
    text = GOOD + "password_file = 'secret'"
    config = load(tmp_path, text, **{PASSWORD_VARIABLE: "hunter2"})
    assert config.broker_url.password == "hunter2"
    assert "hunter2" not in repr(config)
    assert "hunter2" not in str(config.broker_url)


def test_http_is_off_until_it_has_a_section_and_then_listens_on_the_loopback(
    tmp_path: Path,
) -> None:
    assert load(tmp_path, GOOD).http is None
    http = load(tmp_path, GOOD + "[http]\n").http
    assert http is not None and http.address == ("127.0.0.1", 8080)
    shown = (Path(__file__).parents[2] / "agent" / "agent.example.toml").read_text()
    example = shown[shown.index("# [http]") : shown.index("[download]")]
    lines = [line.removeprefix("# ") for line in example.splitlines()]
    settings = [
        line for line in lines if " = " in line and not line.startswith(("socket", "token"))
    ]
    plain = [line for line in settings if not line.startswith(("cert", "key"))]
    assert load(tmp_path, GOOD + "[http]\n" + "\n".join(plain)).http == http


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('listen = "0.0.0.0:80"', "token_file"),
        ('listen = "here"', "host:port"),
        ('listen = "127.0.0.1:70000"', "host:port"),
        ('listen = ""', "neither listen nor socket"),
        ('key = "k.pem"', "key without cert"),
        ('body_max = "much"', "body_max"),
        ("threads = 0", "threads"),
    ],
)
def test_http_settings_that_cannot_be_are_said(text: str, said: str, tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, f"{GOOD}[http]\n{text}\n")
    assert said in fault


def test_a_fault_of_type_hides_no_other_in_its_section(tmp_path: Path) -> None:
    text = '[download]\nstart_delay_max_s = -1\ndaily_max = "50 XB"\nslot = ["25:00-26:00"]\n'
    found = faults(tmp_path, f"{GOOD}{text}")
    assert len(found) == 3
    for name in ("start_delay_max_s", "daily_max", "slot"):
        assert any(name in fault for fault in found), found
