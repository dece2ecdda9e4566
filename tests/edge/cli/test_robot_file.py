"""`--robot FILE.toml`: the same arguments as on the command line, which has the last word; a refusal names the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.cli.robot_file import read_options
from edge.cli.run import main
from edge.cli.run_options import parser
from edge.errors import InputError

ROBOT = """
arm = "so101"
bridge = "feetech:/dev/ttyACM0"
camera = ["front=v4l2:/dev/video0", "wrist=v4l2:/dev/video2"]
bundle = "bundles/current"
log = "/var/run.mcap"
task = "-- put it there"
duration = 60
rate = 500
wait = true
view = false
"""


def test_a_file_is_the_command_line_and_that_has_the_last_word(tmp_path: Path) -> None:
    file = tmp_path / "robot.toml"
    file.write_text(ROBOT)
    line = ["--arm", "so101", "--bridge", "feetech:/dev/ttyACM0", "--bundle", str(tmp_path / "bundles/current")]
    line += ["--camera", "front=v4l2:/dev/video0", "--camera", "wrist=v4l2:/dev/video2", "--log", "/var/run.mcap"]
    line += ["--task=-- put it there", "--duration", "60", "--rate", "500", "--wait"]
    whole = vars(parser().parse_args(line))
    assert vars(read_options(parser(), ["--robot", str(file)])) == whole | {"robot": file}
    again = read_options(parser(), ["--duration", "5", "--robot", str(file), "--task", "another"])
    assert (again.duration, again.task, again.arm) == (5.0, "another", "so101")
    assert vars(read_options(parser(), line)) == whole


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arm = ", "is not TOML"),
        ('arms = "so101"', "'arms' is no option of a file; known: arm, bundle"),
        ('robot = "other.toml"', "'robot' is no option"),
        ("yes = true", "'yes' is no option"),
        ('replay = "run.mcap"', "'replay' is no option"),
        ('wait = "yes"', "wait is 'yes'; write true or false"),
        ("rate = 5", "rate is 5: 5 Hz; the control loop runs at 50 to 1000 Hz"),
        ('rate = "fast"', "rate is 'fast'"),
        ('realtime = "on"', "choose one of auto, off"),
        ("task = [1, 2]", "task is a list of 2; write a text or a number"),
        ("camera = [true]", "camera is true"),
        ("[camera]\nfront = 1", "camera is a table of 1"),
    ],
)
def test_what_no_command_line_could_say_is_one_line_that_names_the_file(
    tmp_path: Path, text: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "robot.toml"
    file.write_text(text)
    assert main(["--robot", str(file)]) == 2
    err = capfd.readouterr().err
    assert message in err and err.startswith(f"edge-run: --robot {file}: ") and err.count("\n") == 1


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"--robot none\.toml: there is no such file"):
        read_options(parser(), ["--robot", "none.toml"])
