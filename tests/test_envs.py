"""Tasks as they are made, and their termination functions against the simulators themselves."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control import PendulumEnv
from gymnasium.envs.mujoco import MujocoEnv
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Dict, Discrete
from torch import Tensor

from lit_mbrl.envs import TASKS, make_gym_env, resolve_termination, termination_path
from lit_mbrl.envs.termination import hopper, never

SIZES = {
    "InvertedPendulum-v5": 4,
    "InvertedPendulum-v4": 4,
    "Hopper-v5": 11,
    "Hopper-v4": 11,
    "Swimmer-v5": 8,
    "HalfCheetah-v5": 17,
    "Walker2d-v5": 17,
    "Walker2d-v4": 17,
    "Ant-v5": 27,
    "Ant-v4": 27,
    "Humanoid-v5": 45,
}
NEVER_TERMINATING = {"HalfCheetah-v5", "Swimmer-v5"}
TRANSITIONS = 10_000  # of either kind of action


class Toy(gymnasium.Env):
    """A task with any spaces, which is made but never stepped."""

    def __init__(self, **spaces: Any):
        self.observation_space = spaces.get("observation_space", Box(-1, 1, (3,)))
        self.action_space = spaces.get("action_space", Box(-2, 2, (2,)))


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gymnasium.registry, "Toy-v0", EnvSpec("Toy-v0", lambda **kw: Toy(**kw)))


def simulator(env: gymnasium.Env) -> Any:
    assert isinstance(env.unwrapped, MujocoEnv)
    return env.unwrapped


def frozen_simulator(env_id: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A simulator whose `step` leaves the state as it is, and judges it."""
    sim = simulator(make_gym_env(env_id))
    sim.reset(seed=0)
    monkeypatch.setattr(sim, "do_simulation", lambda *_: None)
    return sim


def uniform_actions(env: gymnasium.Env, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Actions drawn uniformly from [-1, 1]^A: short episodes that fall quickly."""
    while True:
        yield rng.uniform(-1, 1, env.action_space.shape)


def balancing_actions(env: gymnasium.Env, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Actions of a controller that only just holds its posture, as a policy in training does.

    The pendulum is balanced by linear feedback on its state; the other robots are drawn towards
    their initial joint angles (stiffness 1, damping 0.1). Noise that is correlated over about
    ten steps makes them sway to the edge of what is healthy, and at last over it.
    """
    sim = simulator(env)
    joints = sim.model.actuator_trnid[:, 0]
    angles, velocities = sim.model.jnt_qposadr[joints], sim.model.jnt_dofadr[joints]
    is_pendulum = env.spec is not None and env.spec.id.startswith("InvertedPendulum")
    noise, scale = np.zeros(len(joints)), 0.5 if is_pendulum else 0.2
    while True:
        if is_pendulum:
            feedback = np.array([[0.3, 5.0, 0.4, 0.7]]) @ sim.state_vector()
        else:
            slack = sim.init_qpos[angles] - sim.data.qpos[angles]
            feedback = slack - 0.1 * sim.data.qvel[velocities]
        noise = 0.9 * noise + 0.44 * scale * rng.standard_normal(len(joints))
        yield np.clip(feedback + noise, -1, 1)


Rows = list[tuple[np.ndarray, np.ndarray, np.ndarray, bool]]


def rollout(env_id: str, make_actions: Callable[..., Iterator[np.ndarray]]) -> Rows:
    """`TRANSITIONS` of (observation, action, next observation, terminated)."""
    env = make_gym_env(env_id)
    observation, _ = env.reset(seed=0)
    rows: Rows = []
    for action in make_actions(env, np.random.default_rng(0)):
        next_observation, _, terminated, truncated, _ = env.step(action.astype(np.float32))
        rows.append((observation, action, next_observation, bool(terminated)))
        if len(rows) == TRANSITIONS:
            break
        observation = env.reset()[0] if terminated or truncated else next_observation
    return rows


def predicted_and_true(env_id: str, rows: Rows) -> tuple[Tensor, Tensor]:
    """What the task's termination function says in float32, and what the simulator said."""
    *inputs, terminated = (np.stack(column) for column in zip(*rows, strict=True))
    function = resolve_termination(TASKS[env_id].termination)
    predicted = function(*(torch.as_tensor(column, dtype=torch.float32) for column in inputs))
    assert predicted.dtype == torch.bool
    return predicted, torch.as_tensor(terminated)


@pytest.mark.parametrize("env_id", TASKS)
def test_termination_is_the_simulators_on_real_transitions(env_id: str) -> None:
    rows = rollout(env_id, uniform_actions) + rollout(env_id, balancing_actions)
    predicted, terminated = predicted_and_true(env_id, rows)
    assert len(rows) == 2 * TRANSITIONS
    assert torch.equal(predicted, terminated)
    assert not terminated.all()
    assert terminated.any() == (env_id not in NEVER_TERMINATING)


@pytest.mark.parametrize("env_id", TASKS)
def test_termination_is_the_simulators_at_the_edges(
    env_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every observed number at, just inside and just outside every limit there is."""
    sim = frozen_simulator(env_id, monkeypatch)
    action = np.zeros(sim.action_space.shape)
    start = sim.init_qpos.copy(), sim.init_qvel.copy()
    hidden = len(sim.state_vector()) - SIZES[env_id]  # the first of the positions
    limits = [limit + d for limit in (0.2, 0.7, 0.8, 1, 2, 100) for d in (-1e-5, 0, 1e-5)]
    rows: Rows = []
    for index in range(SIZES[env_id]):
        for value in [*limits, *(-limit for limit in limits), np.nan, np.inf, -np.inf]:
            state = np.concatenate(start)
            state[hidden + index] = value
            sim.data.qpos[:], sim.data.qvel[:] = np.split(state, [sim.model.nq])
            with np.errstate(invalid="ignore"):
                observation, _, terminated, _, _ = sim.step(action)
            if np.array_equal(observation[index], value, equal_nan=True):  # else it was clipped
                rows.append((observation, action, observation, bool(terminated)))
    predicted, terminations = predicted_and_true(env_id, rows)
    assert torch.equal(predicted, terminations)


@pytest.mark.parametrize("name", ["InvertedPendulum", "Hopper", "Ant"])
def test_the_older_version_differs_in_what_a_fall_pays_alone(name: str) -> None:
    """A step that ends an episode is paid 1 for being alive up to -v4, and nothing from -v5 on."""
    older, newer = make_gym_env(f"{name}-v4"), make_gym_env(f"{name}-v5")
    actions, falls = uniform_actions(newer, np.random.default_rng(0)), 0
    seen = older.reset(seed=0)[0]
    assert np.array_equal(seen, newer.reset(seed=0)[0])
    while falls < 3:
        action = next(actions).astype(np.float32)
        seen, reward, terminated, *_ = older.step(action)
        found, paid, ended, *_ = newer.step(action)
        assert np.array_equal(seen, found) and terminated == ended
        assert float(reward) - float(paid) == pytest.approx(float(terminated))
        if terminated:
            falls += 1
            older.reset(seed=falls)
            newer.reset(seed=falls)


def test_hoppers_observation_hides_fast_joints(monkeypatch: pytest.MonkeyPatch) -> None:
    sim = frozen_simulator("Hopper-v5", monkeypatch)
    sim.data.qvel[0] = 101.0
    observation, _, terminated, _, _ = sim.step(np.zeros(3))
    shown = torch.as_tensor(observation)
    assert terminated and not hopper(shown, torch.zeros(3), shown)


@pytest.mark.parametrize(
    ("env_id", "index", "terminates"),
    [
        ("InvertedPendulum-v5", 3, True),
        ("Hopper-v5", 10, True),
        ("Walker2d-v5", 16, False),
        ("Walker2d-v5", 1, True),
        ("Ant-v5", 26, True),
        ("Humanoid-v5", 44, False),
        ("Humanoid-v5", 0, True),
        ("HalfCheetah-v5", 0, False),
    ],
)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_non_finite(env_id: str, index: int, terminates: bool, value: float) -> None:
    env = make_gym_env(env_id)
    healthy = torch.as_tensor(env.reset(seed=0)[0], dtype=torch.float32)
    broken = healthy.clone()
    broken[index] = value
    batch = torch.stack([healthy, broken]).expand(3, 2, -1)
    terminated = resolve_termination(TASKS[env_id].termination)(batch, batch[..., :1], batch)
    assert terminated.tolist() == [[False, terminates]] * 3


@pytest.mark.parametrize("env_id", TASKS)
def test_spaces(env_id: str) -> None:
    env = make_gym_env(env_id)
    assert env.observation_space.shape == (SIZES[env_id],)
    assert env.reset(seed=0)[0].shape == (SIZES[env_id],)
    assert env.action_space == Box(-1.0, 1.0, env.unwrapped.action_space.shape, np.float32)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("action", [-1.0, 0.0, 1.0])
def test_actions_are_scaled_to_the_tasks_own_range(action: float) -> None:
    env = make_gym_env("InvertedPendulum-v5")
    env.reset(seed=0)
    env.step(np.array([action], dtype=np.float32))
    assert simulator(env).data.ctrl.tolist() == [3.0 * action]


def test_env_kwargs_override_the_table() -> None:
    env = make_gym_env("Ant-v5", {"include_cfrc_ext_in_observation": True})
    assert env.observation_space.shape == (105,)
    assert TASKS["Ant-v5"].kwargs["include_cfrc_ext_in_observation"] is False


@pytest.mark.parametrize(
    ("env_id", "env_kwargs", "parts"),
    [
        ("Hoper-v5", None, ["data.env_id", "'Hoper-v5'", "such as Hopper-v5"]),
        ("Hopper-v9", None, ["data.env_id", "'Hopper-v9'", "Hopper-v5"]),
        ("no_such_module:Hopper-v5", None, ["data.env_id", "no_such_module", "module:Name-v0"]),
        ("CartPole-v1", None, ["data.env_id", "'CartPole-v1'", "actions", "Discrete(2)"]),
        ("Hopper-v5", {"legs": 2}, ["data.env_kwargs", "{'legs': 2}", "'legs'", "Hopper-v5"]),
        (
            "Toy-v0",
            {"observation_space": Box(0, 255, (64, 64, 3), np.uint8)},
            ["data.env_id", "'Toy-v0'", "observations", "(64, 64, 3)"],
        ),
        ("Toy-v0", {"observation_space": Dict(a=Discrete(2))}, ["data.env_id", "Dict("]),
        (
            "Toy-v0",
            {"action_space": Box(np.array([-1, -np.inf]), np.ones(2), dtype=np.float64)},
            ["data.env_id", "'Toy-v0'", "finite bounds", "-inf"],
        ),
        ("Toy-v0", {"action_space": Box(-2, 2, (2,), np.int64)}, ["data.env_id", "int64"]),
    ],
)
def test_unfit_tasks_are_refused_in_one_line(
    env_id: str, env_kwargs: dict[str, Any] | None, parts: list[str]
) -> None:
    with pytest.raises(ValueError) as refusal:
        make_gym_env(env_id, env_kwargs)
    message = str(refusal.value)
    assert "\n" not in message and "allowed: " in message
    assert [part for part in parts if part not in message] == []


@pytest.mark.parametrize(
    "path",
    [
        "hopper",
        "",
        ".termination.hopper",
        "no_such_module.hopper",
        "lit_mbrl.envs.termination.no_such_function",
        "lit_mbrl.envs.TASKS",
    ],
)
def test_unfit_terminations_are_refused_in_one_line(path: str) -> None:
    with pytest.raises(ValueError) as refusal:
        termination_path("Hopper-v5", path)
    message = str(refusal.value)
    assert "\n" not in message
    assert message.startswith(f"data.termination: {path!r} was given")
    assert "allowed: 'learned', 'never' or the dotted path" in message


def test_termination_of_the_table_and_of_the_users_choice() -> None:
    table = termination_path("Hopper-v5", None)
    assert table == "lit_mbrl.envs.termination.hopper"
    assert resolve_termination(table) is hopper
    assert termination_path("Hopper-v5", "never") == "never"
    assert resolve_termination("never") is never


@pytest.mark.parametrize("env_id", ["Toy-v0", "my_module:Hopper-v5"])
def test_the_termination_of_a_task_outside_the_table_is_learned(env_id: str) -> None:
    assert termination_path(env_id, None) == "learned"
    assert termination_path("Hopper-v5", "learned") == "learned"


def test_a_users_task_with_its_own_termination(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_task.py").write_text(
        "import gymnasium\n"
        "from gymnasium.envs.classic_control import PendulumEnv\n"
        "gymnasium.register('MyTask-v0', entry_point=PendulumEnv, max_episode_steps=5)\n"
        "def fell(observation, action, next_observation):\n"
        "    return next_observation[..., 0] < 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    env = make_gym_env("my_task:MyTask-v0")
    env.reset(seed=0)
    env.step(np.ones(1, dtype=np.float32))
    assert isinstance(env.unwrapped, PendulumEnv)
    assert env.unwrapped.last_u == 2.0  # its torque lies in [-2, 2]
    path = termination_path("my_task:MyTask-v0", "my_task.fell")
    fell = resolve_termination(path)
    observation = torch.tensor([[-0.5, 0.0, 0.0], [0.5, 0.0, 0.0]])
    assert fell(observation, torch.zeros(2, 1), observation).tolist() == [True, False]


def test_gymnasiums_own_models_are_made_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_gym_env("HalfCheetah-v5").close()
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())  # MuJoCo would write a log
    assert mujoco.get_mju_user_warning() is None
