"""A run that was stopped and goes on is the run that was never stopped."""

import shutil
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from lit_mbrl.callbacks import EnvStepCheckpoint, RolloutLength
from pytorch_lightning import Callback
from resuming import metrics_lost, overrides, start, transitions_lost
from tiny import (
    CONF,
    Lost,
    Run,
    learned,
    options,
)

from lit_mbrl.algorithms import PETS, SAC
from lit_mbrl.checkpoints import RUN, find, is_sound, other_settings, read
from lit_mbrl.data import ReplayData
from lit_mbrl.envs import TASKS, Resumable, make_gym_env
from lit_mbrl.errors import ConfigurationError
from lit_mbrl.fit import main


def assert_same(one: Any, other: Any, name: str) -> None:
    """Checkpoints are equal to the last bit, but for clocks and the name of the run."""
    if name.rpartition(".")[2] in ("seconds", "run_id", "history"):
        return
    assert type(one) is type(other), name
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), name
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), name
        for key in one:
            assert_same(one[key], other[key], f"{name}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), name
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{name}[{index}]")
    else:
        assert one == other, name


def rows(run: Run) -> list[str]:
    """Results without their last column, the time."""
    text = (run.folder / "results" / "seed0.csv").read_text()
    return [line.rpartition(",")[0] for line in text.splitlines()]


@pytest.fixture(scope="module", params=["MPPVE", "MBPO", "SAC", "PETS"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """80 steps without a stop."""
    run = start(request.param, tmp_path_factory.mktemp(request.param))
    assert run.status == 0
    return run


def test_a_continued_run_logs_the_same_numbers(whole: Run, tmp_path: Path) -> None:
    """From step 70, in mid-epoch and mid-episode, to 80; elsewhere, so that nothing is shared."""
    checkpoint = whole.checkpoints / "last.previous.ckpt"
    again = start(whole.algorithm, tmp_path, ckpt_path=checkpoint)
    assert again.lines[0] == f"going on from {checkpoint}, environment step 70"
    assert "does not know run" in again.lines[1]
    assert learned(again) == learned(whole, after=70)
    assert rows(again) == rows(whole)


def test_a_run_that_ended_at_an_epochs_end_is_taken_further(whole: Run, tmp_path: Path) -> None:
    """The first half, then `last`: the same MLflow run has the numbers of the whole."""
    first = start(whole.algorithm, tmp_path, **{"trainer.max_epochs": 1, "checkpoint.every": 40})
    steps = first.metrics["plan/score" if whole.algorithm == "PETS" else "critic/loss"]
    assert max(steps) == 40
    second = start(whole.algorithm, tmp_path, ckpt_path="last")
    assert second.run_id == first.run_id
    assert learned(second) == learned(whole)
    assert rows(second) == rows(whole)
    # And again, from the middle of the epoch that began there.
    checkpoint = second.checkpoints / "last.previous.ckpt"
    third = start(whole.algorithm, tmp_path / "third", ckpt_path=checkpoint)
    assert learned(third) == learned(whole, after=70)
    expected = read(whole.checkpoints / "last.ckpt")
    assert_same(read(second.checkpoints / "last.ckpt"), expected, "checkpoint")
    found = read(third.checkpoints / "last.ckpt")
    # There was no best.ckpt where it went on, so that the next evaluation was the best.
    found[RUN]["best_return"] = expected[RUN]["best_return"]
    assert_same(found, expected, "checkpoint")


def test_a_continued_run_compiles_from_its_first_plan_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the whole run, whose scores of so small a model may be the same to the last bit."""
    compiled: list[bool] = []
    plan = PETS.collecting_plan

    def watched(self: PETS, *arguments: Any) -> Any:
        compiled.append(self.compiler.enabled)
        return plan(self, *arguments)

    monkeypatch.setattr(PETS, "collecting_plan", watched)
    start("PETS", tmp_path, **{"trainer.max_epochs": 1, "checkpoint.every": 40})
    # The collector acts once more at first; and a batch is made before its step begins.
    assert compiled[-40:] == [False] * 21 + [True] * 19
    compiled.clear()
    start("PETS", tmp_path, ckpt_path="last")
    assert compiled[-40:] == [True] * 40


class Stop(Callback):
    """A user's, that ends a run in mid-epoch, as Lightning's EarlyStopping does."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        trainer.should_stop |= pl_module.env_steps == 45


def test_a_run_that_a_callback_ends_is_saved_where_it_ends(whole: Run, tmp_path: Path) -> None:
    first = start(whole.algorithm, tmp_path, **{"trainer.callbacks": f"{__name__}.Stop"})
    second = start(whole.algorithm, tmp_path, ckpt_path="last")
    assert second.lines[0].endswith("environment step 45")
    assert learned(second) == learned(whole)
    assert second.run_id == first.run_id


@pytest.mark.fault("newest checkpoint: {damage}")
@pytest.mark.parametrize("damage", ["truncated", "a flipped bit", "empty"])
def test_a_damaged_checkpoint_is_not_used(
    damage: str, sac: Run, tmp_path: Path, lost: Lost
) -> None:
    """The one before it is, and one line says so."""
    for name in ("last.ckpt", "last.previous.ckpt"):
        shutil.copy(sac.checkpoints / name, tmp_path / name)
    last = tmp_path / "last.ckpt"
    content = bytearray(last.read_bytes())
    if damage == "a flipped bit":
        weights = read(last)["state_dict"]["critic.ensemble.weights.1"]
        content[content.index(weights.numpy().tobytes()) + 100] ^= 1
    last.write_bytes({"truncated": content[: len(content) // 2], "empty": b""}.get(damage, content))
    again = start("SAC", tmp_path, ckpt_path=last)
    assert again.lines[0] == f"checkpoint {last} is damaged and is not used"
    assert again.lines[1].startswith(f"going on from {tmp_path}/last.previous.ckpt")
    lost(transitions_lost(again.checkpoints / "last.ckpt"), metrics_lost(again, sac, after=70))


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_no_checkpoint_stays_where_it_is(kind: str, tmp_path: Path) -> None:
    given = tmp_path / "given"
    if kind == "file":
        given.write_text("somebody's work")
    else:
        given.mkdir()
    with pytest.raises(ConfigurationError, match=r"ckpt_path.*whole"):
        find(str(given), tmp_path, {})
    assert list(tmp_path.iterdir()) == [given]


def test_every_flipped_bit_of_a_tensor_is_found(tmp_path: Path) -> None:
    path = tmp_path / "some.ckpt"
    torch.save({"tensor": torch.arange(1000.0)}, path)
    content = path.read_bytes()
    payload = torch.arange(1000.0).numpy().tobytes()
    begin = content.index(payload)
    for position in range(begin, begin + len(payload), 97):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        assert not is_sound(path)
    path.write_bytes(content)
    assert is_sound(path)


REFUSED = {
    "of another seed": (
        {"seed_everything": 1, "ckpt_path": "LAST"},
        "of algorithm SAC, task Hopper-v5, seed 0; allowed: a checkpoint of algorithm SAC, "
        "task Hopper-v5, seed 1",
    ),
    "of another task": (
        {"data.env_id": "Walker2d-v5", "data.termination": "never", "ckpt_path": "LAST"},
        "allowed: a checkpoint of algorithm SAC, task Walker2d-v5, seed 0",
    ),
    "the weights alone": ({"ckpt_path": "BEST"}, "allowed: a checkpoint with replay buffers"),
    "not there": ({"ckpt_path": "nowhere.ckpt"}, "allowed: 'last', or a checkpoint that is whole"),
    "of larger networks": (
        {"model.hidden_sizes": [16, 17], "ckpt_path": "LAST"},
        "allowed: the configuration that the checkpoint was made with",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_checkpoint_that_does_not_fit_is_refused(
    case: str, sac: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, before anything runs."""
    changed, expected = REFUSED[case]
    given = {**overrides("SAC"), **changed}
    places = {"LAST": sac.checkpoints / "last.ckpt", "BEST": sac.checkpoints / "best.ckpt"}
    given["ckpt_path"] = places.get(given["ckpt_path"], given["ckpt_path"])
    monkeypatch.chdir(sac.folder)
    monkeypatch.setattr(sys, "argv", ["fit"])
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["--config", str(CONF / "sac.yaml"), *options(given)]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert expected in err


def test_last_begins_a_run_where_there_is_none(tmp_path: Path) -> None:
    """So that one command line serves a machine that may be taken away."""
    run = start("SAC", tmp_path, ckpt_path="last", **{"trainer.max_epochs": 1})
    assert run.lines[0] == "no checkpoint of such a run under checkpoints: it begins anew"
    assert max(run.metrics["critic/loss"]) == 40


def test_last_is_of_a_run_with_the_same_settings(tmp_path: Path) -> None:
    """Another learning rate is another run, and leaves the first one's checkpoint alone."""
    first = start("SAC", tmp_path, **{"trainer.max_epochs": 1})
    faster = {"model.learning_rate": 1e-3}
    changed = {**faster, "trainer.max_epochs": 1, "results.folder": "others"}
    other = start("SAC", tmp_path, ckpt_path="last", **changed)
    assert other.run_id != first.run_id
    assert other.lines[0] == (
        "no checkpoint of such a run under checkpoints: it begins anew; "
        f"checkpoints/{first.run_id}/last.ckpt has another model.learning_rate"
    )
    again = start("SAC", tmp_path, ckpt_path="last")
    assert again.run_id == first.run_id


def test_an_option_that_came_later_makes_no_other_run_as_long_as_it_is_not_used() -> None:
    """Nor does one that is given its default; one that is gone does, whatever it was."""
    now = EnvStepCheckpoint.identity(SAC(3, 1), ReplayData("Hopper-v5"), "32-true", RolloutLength())
    before = {**now, "settings": dict(now["settings"])}
    del before["settings"]["model.max_return"]
    assert other_settings(before, now) == []
    used = EnvStepCheckpoint.identity(
        SAC(3, 1, max_return=100.0), ReplayData("Hopper-v5"), "bf16-mixed", RolloutLength(end=2)
    )
    assert other_settings(before, used) == [
        "model.max_return",
        "rollout_length",
        "trainer.precision",
    ]
    before["settings"]["model.gone"] = "1"
    assert other_settings(before, now) == ["model.gone"]


def test_a_complete_run_has_nothing_to_go_on_with(
    sac: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A job that was queued again ends well."""
    monkeypatch.chdir(sac.folder)
    monkeypatch.setattr(sys, "argv", ["fit"])
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    values = {**overrides("SAC"), "trainer.max_epochs": 1, "ckpt_path": "last"}
    assert main(["--config", str(CONF / "sac.yaml"), *options(values)]) == 0
    assert "this run is complete" in capsys.readouterr().out


class Forgetful(gymnasium.Env[np.ndarray, np.ndarray]):
    """A task whose state nobody can save: it counts its steps."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,))
        self.count = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.count += 1
        return self._observe(), 1.0, False, self.count == 1000, {}

    def _observe(self) -> np.ndarray:
        return np.array([self.count, self.np_random.normal()], np.float32)


def test_a_task_that_cannot_be_saved_begins_a_new_episode(tmp_path: Path) -> None:
    """No window crosses the cut, and a line says what happened."""
    gymnasium.register("Forgetful-v0", Forgetful)
    values = {"data.env_id": "Forgetful-v0", "data.termination": "never"}
    first = start("MPPVE", tmp_path, **values, **{"trainer.max_epochs": 1, "checkpoint.every": 40})
    second = start("MPPVE", tmp_path, **values, ckpt_path="last")
    assert any("Forgetful-v0 cannot go on in mid-episode" in line for line in second.lines)
    assert second.run_id == first.run_id
    replay = read(second.checkpoints / "last.ckpt")[RUN]["data"]["replay"]
    counts = replay["rows"][:, 0]  # the first of the observation's two numbers
    assert replay["steps"] == 200 + 80
    assert counts[:241].tolist() == [*range(240), 0]  # step 40 begins a new episode
    starts = replay["starts"]["values"]
    # Windows of three steps: the last two steps before the cut begin none.
    assert starts.tolist() == [*range(238), *range(240, 278)]


@pytest.mark.parametrize("env_id", TASKS)
def test_a_task_goes_on_bit_for_bit(env_id: str) -> None:
    """Over ends of episodes, the time limit and new starts, from a state put into a new copy."""
    kwargs = {"max_episode_steps": 50}
    generator = np.random.default_rng(0)
    env = Resumable(make_gym_env(env_id, kwargs))
    size = env.action_space.shape
    assert size is not None
    observation, _ = env.reset(seed=3)
    for cut in range(0, 140, 7):  # also at the very end of an episode
        copy = Resumable(make_gym_env(env_id, kwargs))
        saved = env.snapshot()
        assert saved is not None
        copy.resume(saved)
        ended = saved["observation"] is None
        resumed, _ = copy.reset()
        if ended:
            observation, _ = env.reset()
        np.testing.assert_array_equal(resumed, observation)
        for _ in range(7):
            action = generator.uniform(-1, 1, size)
            first, second = env.step(action), copy.step(action)
            np.testing.assert_array_equal(first[0], second[0])
            assert first[1:4] == second[1:4], cut
            observation = first[0]
            if (first[2] or first[3]) and _ < 6:
                observation, _info = env.reset()
                np.testing.assert_array_equal(copy.reset()[0], observation)
