"""What no single class can see of a configuration: whether its parts go together."""

import math
from typing import Any

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Timer

from lit_mbrl.algorithms import Agent
from lit_mbrl.callbacks import Compilation, Diagnosis, Evaluation, Retraining
from lit_mbrl.callbacks.trainer import callback_of
from lit_mbrl.data import ReplayData
from lit_mbrl.envs import LEARNED, resolve_reward, resolve_termination
from lit_mbrl.errors import ConfigurationError, cause, require
from lit_mbrl.planning import require_lookahead

VALUES = ("critic", "actor", "temperature", "gamma")
"""What an algorithm needs for `evaluation.value_bias`."""


def check(
    trainer: Trainer,
    agent: Any,
    data: ReplayData,
    compilation: Compilation,
    retraining: Retraining,
    evaluation: Evaluation,
    diagnosis: Diagnosis,
) -> None:
    """Check that a trainer, an algorithm, its data and its callbacks go together.

    Raises:
        ConfigurationError: If the parts do not go together.
    """
    require(trainer.world_size == 1, "trainer.devices", trainer.world_size, "1, for the time being")
    require(
        trainer.max_steps == -1,
        "trainer.max_steps",
        trainer.max_steps,
        "-1: it would count what is not counted here; trainer.max_epochs counts "
        f"{data.steps_per_epoch} environment steps each",
    )
    require(
        trainer.max_epochs is not None and trainer.max_epochs >= 1,
        "trainer.max_epochs",
        trainer.max_epochs,
        "an integer of at least 1",
    )
    clipping = trainer.gradient_clip_val
    require(
        not clipping,
        "trainer.gradient_clip_val",
        clipping,
        "null: algorithms take their gradient steps themselves, and those that clip have an option",
    )
    timer = callback_of(trainer, Timer)  # Lightning's for `max_time`, or one that only watches
    seconds = None if timer is None else timer.time_remaining()
    allowed = "null: `timeout 1h python -m lit_mbrl.fit ...` ends a run so that it can go on"
    require(seconds is None, "trainer.max_time", f"{seconds} seconds", allowed)
    batches = trainer.accumulate_grad_batches
    require(batches == 1, "trainer.accumulate_grad_batches", batches, "1")
    limit = trainer.limit_train_batches
    require(limit == 1.0, "trainer.limit_train_batches", limit, "1.0: data.steps_per_epoch sets it")
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    require(every >= 1, "trainer.log_every_n_steps", every, "an integer of at least 1")
    require(
        agent.fixed_shapes or compilation.after is None,
        "compilation.after",
        compilation.after,
        f"null for {type(agent).__name__}, which would be compiled anew for each number of states",
    )
    acts = hasattr(agent, "actor") or type(agent).act is not Agent.act
    name = type(agent).__name__
    require(acts, "model", name, "an algorithm that has an `actor`, or an `act` of its own")
    for name, value in agent.hparams.items():
        numbers = value if isinstance(value, list | tuple) else [value]
        finite = all(math.isfinite(number) for number in numbers if isinstance(number, float))
        require(finite, f"model.{name}", value, "finite numbers")
    check_functions(agent.hparams, data.env_id)
    learns_model = hasattr(agent, "dynamics")
    require(
        not learns_model or data.warmup_steps >= 2,
        "data.warmup_steps",
        data.warmup_steps,
        "at least 2, one to fit the model to and one that is held out",
    )
    require(
        learns_model or retraining.every == 0,
        "retraining.every",
        retraining.every,
        f"0 for {type(agent).__name__}, which learns no model",
    )
    require(
        learns_model or diagnosis.every == 0,
        "diagnosis.every",
        diagnosis.every,
        f"0 for {type(agent).__name__}, which learns no model",
    )
    require(
        not evaluation.value_bias or all(hasattr(agent, name) for name in VALUES),
        "evaluation.value_bias",
        evaluation.value_bias,
        f"false for {type(agent).__name__}, which learns no values",
    )
    if evaluation.planner is not None:
        require_lookahead("evaluation.planner", agent, evaluation.planner)
    imagines = hasattr(agent, "imagine") and retraining.every > 0
    require(
        imagines or data.imagined_rows == 0,
        "data.real_ratio",
        data.hparams["real_ratio"],
        "1 without a model that is retrained (retraining.every > 0) and imagines",
    )
    longest = min(data.warmup_steps, data.max_episode_steps or data.warmup_steps)
    require(
        not imagines or retraining.rollouts == 0 or agent.plan_length <= longest,
        "model.plan_length",
        agent.plan_length,
        f"at most {longest}, the steps of an episode or of the warm-up, where rollouts begin",
    )
    require(
        retraining.rollouts > 0 or data.imagined_rows == 0,
        "retraining.rollouts",
        retraining.rollouts,
        "at least 1 where a batch has imagined rows (data.real_ratio below 1)",
    )
    require(
        imagines or retraining.every == 0 or retraining.rollouts == 0,
        "retraining.rollouts",
        retraining.rollouts,
        f"0 for {type(agent).__name__}, which keeps no imagined data",
    )
    require(
        agent.learns_from_batches == (data.updates_per_step > 0),
        "data.updates_per_step",
        data.updates_per_step,
        "an integer of at least 1"
        if agent.learns_from_batches
        else f"0 for {type(agent).__name__}, which learns nothing between two fits",
    )
    agent.expect_batches(data.real_rows, data.imagined_rows)


def check_functions(options: Any, env_id: str) -> None:
    """Try an algorithm's termination and known reward, if it has them, on rows [2, 3] of zeros.

    A termination of another shape would not fail later: each row would be told of another's end.

    Args:
        options: The algorithm's.
        env_id: The task.

    Raises:
        ConfigurationError: If one is of another task, fails, or returns anything else than
            booleans or numbers [2, 3].
    """
    sizes = options.get("observation_size"), options.get("action_size")
    if (reward := options.get("reward")) is not None:
        function = resolve_reward(reward)
        require(
            getattr(function, "sizes", sizes) == sizes,
            "model.reward",
            reward,
            f"null, or a function for the {sizes[0]} observations and {sizes[1]} actions of "
            f"{env_id}",
        )
        _try("model.reward", reward, function, sizes, "numbers")
    if (termination := options.get("termination", LEARNED)) != LEARNED:
        function = resolve_termination(termination)
        _try("data.termination", termination, function, sizes, "booleans")


def _try(option: str, path: str, function: Any, sizes: tuple[int, int], kind: str) -> None:
    observation, action = (torch.zeros(2, 3, size) for size in sizes)
    allowed = (
        f"a function (observation [..., {sizes[0]}], action [..., {sizes[1]}], next_observation "
        f"[..., {sizes[0]}]) -> {kind} [...]"
    )
    try:
        found = function(observation, action, observation)
    except Exception as error:  # of any kind: it is the user's function
        raise ConfigurationError(
            f"{option}: {path!r} was given ({cause(error)}); allowed: {allowed}"
        ) from error
    is_tensor = isinstance(found, torch.Tensor)
    fits = is_tensor and found.shape == (2, 3)
    fits = fits and (found.is_floating_point() if kind == "numbers" else found.dtype == torch.bool)
    told = f"{found.dtype} {list(found.shape)}" if is_tensor else type(found).__name__
    require(fits, option, path, f"{allowed}; of rows [2, 3] it returned {told}")
