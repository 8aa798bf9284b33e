"""Evaluating a checkpoint: the run's own numbers, another seed or task, a film, and refusals."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import pytest
import torch
from tiny import CONF, TINY, TINY_MODEL, Run, execute

from lit_mbrl.evaluate import main

USERS_MODULE = """
import gymnasium
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from gymnasium.spaces import Box


class Failing(HopperEnv):
    def step(self, action):
        raise RuntimeError("out of order")


class Undrawn(gymnasium.Env):
    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        self.observation_space, self.action_space = Box(-1, 1, (11,)), Box(-1, 1, (3,))

    def reset(self, seed=None, options=None):
        return self.observation_space.sample(), {}

    def render(self):
        return None


gymnasium.register("Short-v0", HopperEnv, max_episode_steps=3)
gymnasium.register("Failing-v0", Failing)
gymnasium.register("Undrawn-v0", Undrawn)
gymnasium.register("Undrawable-v0", lambda: Undrawn())
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    overrides = {**TINY, **TINY_MODEL, "data.env_id": "Hopper-v5"}
    return execute("mppve", tmp_path_factory.mktemp("run"), CONF / "mppve.yaml", overrides)


@pytest.fixture
def users_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_hoppers.py").write_text(USERS_MODULE)
    monkeypatch.syspath_prepend(tmp_path)


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*map(str, arguments), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
def test_it_finds_what_the_run_has_logged(
    name: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluated(capsys, run.checkpoints / name, "--episodes", "2")
    step = found["env_step"]
    logged = run.metrics["eval/return_mean"]
    assert step == (max(logged, key=lambda step: logged[step]) if name == "best.ckpt" else 40)
    assert (found["algorithm"], found["task"], found["seed"]) == ("MPPVE", "Hopper-v5", 0)
    assert found["return"]["mean"] == logged[step]
    assert found["return"]["std"] == run.metrics["eval/return_std"][step]
    assert found["length"]["mean"] == run.metrics["eval/episode_length"][step]


def test_another_seed_has_other_episodes(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = run.checkpoints / "best.ckpt"
    own, same, other = (
        evaluated(capsys, checkpoint, "--episodes", "3", *seed)
        for seed in ([], ["--seed", "0"], ["--seed", "1"])
    )
    assert own == same
    assert len(set(own["returns"] + other["returns"])) == 6


def test_the_lines_say_what_the_json_says(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = run.checkpoints / "best.ckpt"
    found = evaluated(capsys, checkpoint, "--episodes", "3")
    assert main([str(checkpoint), "--episodes", "3"]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    step = found["env_step"]
    assert first == f"MPPVE on Hopper-v5, environment step {step}: 3 deterministic episodes, seed 0"
    for line, name in zip(lines, ("return", "length"), strict=True):
        values = re.fullmatch(rf"{name}: mean (.*), std (.*), min (.*), max (.*)", line)
        assert values is not None, line
        expected = [found[name][key] for key in ("mean", "std", "min", "max")]
        assert [float(value) for value in values.groups()] == pytest.approx(expected, abs=0.005)
        own = found[f"{name}s"]
        assert expected[0] == pytest.approx(sum(own) / 3)
        assert expected[2:] == [min(own), max(own)]


def test_another_task_of_the_same_sizes(
    run: Run, users_module: None, capsys: pytest.CaptureFixture[str]
) -> None:
    task = ["--env_id", "users_hoppers:Short-v0"]
    assert evaluated(capsys, run.checkpoints / "best.ckpt", *task)["lengths"] == [3] * 10


def test_a_task_that_fails_is_one_line(
    run: Run, users_module: None, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = str(run.checkpoints / "best.ckpt")
    assert main([checkpoint, "--env_id", "users_hoppers:Failing-v0"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: the task's step failed: RuntimeError('out of order')"


def test_a_film_has_a_frame_for_every_observation(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, film = run.checkpoints / "best.ckpt", tmp_path / "film.mp4"
    expected = evaluated(capsys, checkpoint, "--episodes", "2")
    status = main([str(checkpoint), "--episodes", "2", "--json", "--video", str(film)])
    captured = capsys.readouterr()
    if "EGL" in captured.err:
        pytest.skip(f"nothing can be drawn here: {captured.err}")
    assert status == 0
    assert json.loads(captured.out) == expected, "filming changes nothing"
    assert film.read_bytes()[4:8] == b"ftyp"
    with imageio.get_reader(film) as reader:
        assert reader.count_frames() == expected["lengths"][0] + 1
        assert reader.get_meta_data()["fps"] == 125  # Hopper's time step is 8 ms
        first, *_, last = [frame.astype(float) for frame in reader]
    assert first.shape == (480, 480, 3) and first.std() > 10
    assert abs(last - first).max() > 50, "it moves"


def test_where_nothing_can_be_drawn_it_says_so_in_one_line(run: Run, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    command = [sys.executable, "-m", "lit_mbrl.evaluate", str(run.checkpoints / "best.ckpt")]
    hidden = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    done = subprocess.run(
        [*command, "--video", str(film)],
        env={**hidden, "__EGL_VENDOR_LIBRARY_DIRS": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    if done.returncode == 0:
        pytest.skip("OpenGL cannot be hidden here")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: video: '{film}' was given (")
    assert line.endswith("need EGL, on Debian the package libegl1")
    assert not film.exists()


def test_a_task_that_draws_nothing_is_one_line(
    run: Run, users_module: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = ["--video", str(tmp_path / "film.mp4")]
    for name, told in {
        "Undrawn-v0": "the task draws no images",
        "Undrawable-v0": "render_mode='rgb_array'",
    }.items():
        task = ["--env_id", f"users_hoppers:{name}"]
        assert main([str(run.checkpoints / "best.ckpt"), *task, *video]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: video: ") and told in line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ("checkpoint: missing; see --help",)),
        (["BEST", "more"], ("more: no such option",)),
        (["BEST", "--epsodes", "3"], ("epsodes: no such option; did you mean episodes?",)),
        (["BEST", "--episodes", "many"], ("episodes: 'many' was given", "int")),
        (["BEST", "--episodes", "0"], ("episodes: 0 was given", "at least 1")),
        (["BEST", "--seed", "-1"], ("seed: -1 was given", "0 to 2**32 - 1")),
        (["BEST", "--video", "film.gif"], ("video: 'film.gif' was given", ".mp4")),
        (["BEST", "--video", "nowhere/film.mp4"], ("video: 'nowhere/film.mp4'", "folder")),
        (["BEST", "--env_id", "Hoper-v5"], ("data.env_id: 'Hoper-v5'", "Hopper-v5")),
        (["BEST", "--env_id", "Ant-v5"], ("env_id: 'Ant-v5'", "[(11,), (3,)]", "[(27,), (8,)]")),
        (["nowhere.ckpt"], ("checkpoint: 'nowhere.ckpt' was given", "a file")),
        ([str(Path(__file__).parent)], ("checkpoint: ", "that is whole")),
        ([__file__], ("checkpoint: ", "a checkpoint of lit_mbrl.fit that is whole")),
    ],
)
def test_it_refuses_in_one_line(
    arguments: list[str],
    expected: tuple[str, ...],
    run: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    best = str(run.checkpoints / "best.ckpt")
    assert_refused([best if word == "BEST" else word for word in arguments], expected, capsys)


class Malicious:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("executed"),)


def changed(saved: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {**saved, "hyper_parameters": {**saved["hyper_parameters"], **options}}


SPOILED = {
    "of another program": (lambda saved: {"weights": torch.zeros(3)}, "checkpoint of lit_mbrl.fit"),
    "a tensor": (lambda saved: torch.zeros(3), "a checkpoint of lit_mbrl.fit"),
    "that would run code": (lambda saved: Malicious(), "a checkpoint of lit_mbrl.fit"),
    "of an algorithm that is gone": (
        lambda saved: changed(saved, _class_path="gone.Algorithm"),
        "of gone.Algorithm; allowed: a checkpoint of an algorithm that can be imported",
    ),
    "of something to call": (
        lambda saved: changed(saved, _class_path="os.abort"),
        "of os.abort; allowed: a checkpoint of an algorithm",
    ),
    "of an algorithm with other networks": (
        lambda saved: changed(saved, hidden_sizes=[8]),
        "a checkpoint of lit_mbrl.algorithms.MPPVE as it is now (",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_checkpoint_that_cannot_be_used_is_one_line(
    case: str,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil, words = SPOILED[case]
    monkeypatch.chdir(tmp_path)
    torch.save(spoil(torch.load(run.checkpoints / "best.ckpt", weights_only=True)), "spoiled.ckpt")
    expected = "checkpoint: 'spoiled.ckpt' was given", words
    assert_refused(["spoiled.ckpt"], expected, capsys)
    assert not Path("executed").exists()


def test_a_damaged_checkpoint_is_one_line(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray((run.checkpoints / "best.ckpt").read_bytes())
    content[len(content) // 2] ^= 1
    damaged = tmp_path / "damaged.ckpt"
    damaged.write_bytes(content)
    assert_refused([str(damaged)], (f"checkpoint: '{damaged}' was given", "whole"), capsys)
    assert damaged.exists(), "a file that is only read is left where it is"


def assert_refused(
    arguments: list[str], expected: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith(f"error: {expected[0]}"), line
    for words in expected[1:]:
        assert words in line
