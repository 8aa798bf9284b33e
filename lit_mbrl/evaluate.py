"""Evaluate a checkpoint's policy: `python -m lit_mbrl.evaluate CHECKPOINT`."""

import sys
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import Env

from lit_mbrl.callbacks.evaluation import run_episodes
from lit_mbrl.envs import Resumable, make_gym_env
from lit_mbrl.errors import require
from lit_mbrl.parser import Parser, command
from lit_mbrl.planning import Planner, require_lookahead
from lit_mbrl.trained import load
from lit_mbrl.video import Film, filmed

DESCRIPTION = """Run deterministic episodes of a checkpoint's policy and print the mean, standard
deviation, smallest and largest of their returns and lengths. With the run's own seed, task, planner
and number of episodes they are those of its evaluation, unless it was one of plans in
bf16-mixed: here they are in float32."""


def main(arguments: list[str] | None = None) -> int:
    """Evaluate; returns the exit status.

    Args:
        arguments: The command line's; those of the process if None.
    """
    parser = Parser(
        prog="python -m lit_mbrl.evaluate", description=DESCRIPTION, exit_on_error=False
    )
    add = parser.add_argument
    add("checkpoint", type=Path, help="best.ckpt or last.ckpt of a run")
    add("--episodes", type=int, default=10, help="how many, side by side")
    add("--seed", type=int | None, help="of the initial states; the run's own by default")
    add("--env_id", type=str | None, help="another task of the same sizes, such as a variant")
    add("--planner", type=Planner | None, help="such as ARC: look ahead with the run's own model")
    add("--video", type=Path | None, help="an .mp4 for the first episode")
    add("--json", action="store_true", help="print one JSON object, with every episode")
    return command(evaluate, parser, arguments)


def evaluate(
    checkpoint: Path,
    episodes: int = 10,
    seed: int | None = None,
    env_id: str | None = None,
    planner: Planner | None = None,
    video: Path | None = None,
    json: bool = False,
) -> None:
    """Run episodes of a checkpoint's policy and print what they came to.

    Args:
        checkpoint: best.ckpt or last.ckpt of a run.
        episodes: How many, side by side.
        seed: Of the initial states; the run's own if None.
        env_id: Another task with as many observations and actions; the run's own if None.
        planner: Acts on top of the policy, see `lit_mbrl.planning.lookahead`, if given.
        video: An .mp4 of the first episode.
        json: Print one JSON object instead of lines.

    Raises:
        ConfigurationError: If a value cannot be used.
        TrainingError: If the task fails, or the policy's actions are not finite.
    """
    require(episodes >= 1, "episodes", episodes, "an integer of at least 1")
    require(seed is None or 0 <= seed < 2**32, "seed", seed, "an integer from 0 to 2**32 - 1")
    usable = video is None or (video.suffix == ".mp4" and video.parent.is_dir())
    require(usable, "video", str(video), "an .mp4 in a folder that is there")
    trained = load(checkpoint)
    if planner is not None:
        require_lookahead("planner", trained.agent, planner)
    if env_id is not None:
        trained = trained._replace(env_id=env_id, env_kwargs=None)
    seed = trained.seed if seed is None else seed
    envs: list[Env[Any, Any]] = [
        Resumable(make_gym_env(trained.env_id, trained.env_kwargs)) for _ in range(episodes)
    ]
    sizes = [space.shape for space in (envs[0].observation_space, envs[0].action_space)]
    learned = [(trained.agent.hparams[name],) for name in ("observation_size", "action_size")]
    require(sizes == learned, "env_id", env_id, f"a task with the sizes {learned}, not {sizes}")
    if video is not None:
        envs[0] = filmed(trained.env_id, trained.env_kwargs, video)
    try:
        returns, lengths = run_episodes(trained.agent, envs, seed, planner)
    finally:
        for env in envs:
            env.close()
    spreads = {"return": spread(returns), "length": spread(lengths)}
    if json:
        about = {
            "algorithm": type(trained.agent).__name__,
            "task": trained.env_id,
            "env_step": trained.env_step,
            "seed": seed,
        }
        print(dumps({**about, **spreads, "returns": list(returns), "lengths": list(lengths)}))
        return
    print(f"{trained}: {episodes} deterministic episodes, seed {seed}")
    for name, found in spreads.items():
        print(f"{name}:", ", ".join(f"{key} {value:.2f}" for key, value in found.items()))
    if isinstance(envs[0], Film):
        print(f"video: {video}, {envs[0].frames:,} frames of the first episode")


def spread(values: np.ndarray) -> dict[str, float]:
    """Mean, standard deviation, smallest and largest."""
    found = {"mean": values.mean(), "std": values.std(), "min": values.min(), "max": values.max()}
    return {name: float(value) for name, value in found.items()}


if __name__ == "__main__":
    sys.exit(main())
