"""Schedules, and the order of things in a real run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lit_mbrl.callbacks import EnvStepCheckpoint, Evaluation, Retraining, RolloutLength
from pytorch_lightning import Callback, Trainer
from tensordict import TensorDict
from tiny import CONF, TINY, TINY_MODEL, options

from lit_mbrl.algorithms import MBPO, MPPVE
from lit_mbrl.compilation import Compiler
from lit_mbrl.data import ReplayData
from lit_mbrl.envs import make_gym_env
from lit_mbrl.fit import build


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # paper 000, Table 1: Hopper, InvertedPendulum, Walker2d
        ((1, 4, 20_000, 50_000), {0: 1, 20_000: 1, 29_999: 1, 30_000: 2, 40_000: 3, 50_000: 4}),
        ((1, 5, 0, 1_000), {0: 1, 249: 1, 250: 2, 500: 3, 750: 4, 999: 4, 1_000: 5, 9_999: 5}),
        ((1, 1, 0, 0), {0: 1, 1: 1, 100_000: 1}),
        ((6, 2, 100, 500), {0: 6, 100: 6, 200: 5, 300: 4, 500: 2, 900: 2}),
    ],
)
def test_rollout_length_is_the_thresholded_linear_function(
    schedule: tuple[int, int, int, int], expected: dict[int, int]
) -> None:
    rollout_length = RolloutLength(*schedule)
    assert {t: rollout_length.at(t) for t in expected} == expected


@pytest.mark.parametrize(
    ("after", "expected"),
    [(0, [True] * 3), (1, [False, False, True]), ("null", [False] * 3)],
)
def test_compiling_begins_with_the_first_fit_or_after_a_step(
    after: int | str, expected: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As seen at the first fit and at two steps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        Compiler, "_call", lambda self, name, key, function, given: function(*given)
    )
    seen = []

    class Watched(MBPO):
        def fit_dynamics(self, transitions: Any) -> Any:
            seen.append(self.dynamics.compiler.enabled)
            return super().fit_dynamics(transitions)

        def training_step(self, batch: Any, batch_idx: int) -> None:
            seen.append(self.compiler.enabled)
            super().training_step(batch, batch_idx)

    changed = {"compilation.after": after, "data.steps_per_epoch": 2, "trainer.logger": "false"}
    given = options({**TINY, **TINY_MODEL, **changed})
    cli = build(["--config", str(CONF / "mbpo.yaml"), *given])
    written = {key: value for key, value in cli.model.hparams.items() if key[0] != "_"}
    agent = Watched(**written)
    cli.trainer.fit(agent, cli.datamodule)
    assert seen == expected


class Diary(Callback):
    """Writes down what happens, with the environment step it happens at."""

    def __init__(self) -> None:
        self.entries: list[tuple[Any, ...]] = []
        self.fitted: list[TensorDict] = []


class Traced(MPPVE):
    """MPPVE that keeps a diary of when its model is fitted and used."""

    diary: Diary

    def fit_dynamics(self, transitions: Any) -> Any:
        self.diary.entries.append(("fit", self.env_steps, len(transitions)))
        self.diary.fitted.append(transitions)
        return super().fit_dynamics(transitions)

    def imagine(self, replay: Any, rollouts: int) -> Any:
        windows = super().imagine(replay, rollouts)
        self.diary.entries.append(("imagine", self.rollout_length, rollouts))
        return windows

    def training_step(self, batch: Any, batch_idx: int) -> None:
        data: Any = self.trainer.datamodule  # type: ignore[union-attr]
        happened = data.replay.transitions()["next", "observation"]
        real = (batch["next", "observation"].unsqueeze(2) == happened).all(-1).any(-1).tolist()
        size = len(data.imagined), data.imagined.capacity
        self.diary.entries.append(("train", self.env_steps, len(data.replay), real, size))
        super().training_step(batch, batch_idx)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Traced, ReplayData, Evaluation, Path]:
    """Two epochs of 30 steps with a schedule 1 -> 3 and retraining every 10 steps."""
    folder, evaluation = tmp_path_factory.mktemp("run"), Evaluation(every=20, episodes=3)
    agent, data = train(folder, Retraining(every=10, rollouts=50, retain_steps=20), evaluation)
    return agent, data, evaluation, folder


def train(
    folder: Path, retraining: Retraining, evaluation: Evaluation
) -> tuple[Traced, ReplayData]:
    torch.manual_seed(0)
    data = ReplayData(
        "InvertedPendulum-v5",
        batch_size=16,
        updates_per_step=3,
        real_ratio=0.25,
        warmup_steps=100,
        steps_per_epoch=30,
    )
    agent = Traced(
        data.observation_size,
        data.action_size,
        data.termination_path,
        hidden_sizes=[16],
        dynamics_hidden_sizes=[16],
        dynamics_weight_decay=[0.0, 0.0],
        dynamics_networks=3,
        dynamics_elites=2,
        fit_patience=1,
    )
    agent.diary = Diary()
    trainer = Trainer(
        max_epochs=2,
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            RolloutLength(1, 3, 10, 30),
            retraining,
            evaluation,
            EnvStepCheckpoint(str(folder), every=25),
        ],
    )
    trainer.fit(agent, data)
    return agent, data


def test_the_model_that_serves_a_step_was_fitted_on_all_data_before_it(run: Any) -> None:
    """Fits before step 0 and at the end of every tenth step; D_env holds warm-up + t then."""
    fits = [entry[1:] for entry in run[0].diary.entries if entry[0] == "fit"]
    assert fits == [(t, 100 + t) for t in range(0, 61, 10)]


def test_a_fit_is_of_as_many_rows_of_d_env_as_it_may_be(tmp_path: Path) -> None:
    """All but the first come from a D_env that is larger; each draws other rows, none twice."""
    retraining = Retraining(every=10, rollouts=50, retain_steps=20, fit_rows=105)
    agent, data = train(tmp_path, retraining, Evaluation(every=60, episodes=1))
    fitted = [drawn["observation"] for drawn in agent.diary.fitted]
    assert [len(rows) for rows in fitted] == [100, 105, 105, 105, 105, 105, 105]
    kept = {tuple(row) for row in data.replay.transitions()["observation"].tolist()}
    drawn = [{tuple(row) for row in rows.tolist()} for rows in fitted]
    assert all(rows <= kept for rows in drawn)
    assert [len(rows) for rows in drawn] == [len(rows) for rows in fitted]  # none twice
    assert len({frozenset(rows) for rows in drawn}) == len(drawn)


def test_each_batch_is_drawn_after_its_own_step(run: Any) -> None:
    """One environment step a batch, counted without the warm-up, across epochs; real rows first."""
    trained = [entry for entry in run[0].diary.entries if entry[0] == "train"]
    assert [entry[1] for entry in trained] == list(range(1, 61))
    assert [entry[2] for entry in trained] == list(range(101, 161))
    assert all(entry[3] == [[True] * 4 + [False] * 12] * 3 for entry in trained)


def test_rollouts_follow_the_schedule_and_d_model_their_length(run: Any) -> None:
    imagined = [entry[1:] for entry in run[0].diary.entries if entry[0] == "imagine"]
    assert imagined == [(length, 50) for length in (1, 1, 2, 3, 3, 3, 3)]
    sizes = {e[1]: e[4] for e in run[0].diary.entries if e[0] == "train"}
    assert [sizes[t][1] for t in (1, 11, 21, 31, 60)] == [100, 100, 200, 300, 300]
    # Two fits' windows of one step each are kept, none flushed; branches may end early later.
    assert sizes[1][0] == 50 and sizes[11][0] == 100
    assert 100 < sizes[21][0] <= 200


def test_evaluation_is_deterministic_and_leaves_training_alone(run: Any) -> None:
    """The same policy has the same return twice, and no random number is drawn."""
    agent, data, evaluation, _ = run
    assert [e.env_step for e in evaluation.history] == [20, 40, 60]
    evaluation._envs = [make_gym_env(data.env_id) for _ in range(evaluation.episodes)]
    before = torch.get_rng_state()
    returns, lengths = evaluation.run_episodes(agent)
    again, _ = evaluation.run_episodes(agent)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(returns, again)
    assert returns.mean() == pytest.approx(evaluation.history[-1].return_mean)
    ends = {tuple(env.unwrapped.data.qpos) for env in evaluation._envs}  # type: ignore[attr-defined]
    assert len(ends) == 3, "each copy has an initial state of its own"
    # InvertedPendulum pays 1 a step, and 0 for the step that ends the episode.
    assert np.array_equal(returns, np.where(lengths < 1000, lengths - 1, lengths))


def test_evaluated_return_equals_a_naive_episode(run: Any) -> None:
    agent, data, evaluation, _ = run
    env = make_gym_env(data.env_id)
    seed = int(np.random.SeedSequence([evaluation.seed, 1]).generate_state(3)[1])
    observation, _ = env.reset(seed=seed)
    total, ended = 0.0, False
    while not ended:
        with torch.no_grad():
            action = agent.act(torch.tensor(observation[None], dtype=torch.float32), True)[0]
        observation, reward, terminated, truncated, _ = env.step(action.numpy())
        total, ended = total + float(reward), terminated or truncated
    evaluation._envs = [make_gym_env(data.env_id) for _ in range(evaluation.episodes)]
    assert evaluation.run_episodes(agent)[0][1] == total


def test_checkpoints_hold_the_algorithm(run: Any) -> None:
    """last.ckpt is of step 50, loads safely, and brings scaler, elites and optimizers back."""
    agent, _, _, folder = run
    assert {path.name for path in folder.iterdir()} == {"last.ckpt", "best.ckpt", "lock"}
    saved = torch.load(folder / "last.ckpt", weights_only=True)
    assert len(saved["optimizer_states"]) == 4
    restored = MPPVE.load_from_checkpoint(folder / "last.ckpt", weights_only=True)
    assert restored.hparams["plan_length"] == 3
    for name, value in restored.state_dict().items():
        assert torch.equal(value, saved["state_dict"][name])
    assert not torch.equal(restored.dynamics.input_mean, torch.zeros(5))
    assert type(agent).__name__ == "Traced"
