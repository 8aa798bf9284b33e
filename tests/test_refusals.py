"""What the command line refuses, in one line and before anything runs."""

import subprocess
import sys
from pathlib import Path

import pytest
from refusals import CONF, MPPVE, assert_refused

from lit_mbrl.fit import main

MBPO = ["--config", str(CONF / "mbpo.yaml")]
SAC = ["--config", str(CONF / "sac.yaml")]

# The first words are those that the line begins with: the option.
REFUSED = {
    "a precision that would need scaled losses": (
        [*MPPVE, "--trainer.precision", "16-mixed"],
        ("trainer.precision: '16-mixed' was given", "32-true or bf16-mixed"),
    ),
    "unknown option": ([*MPPVE, "--nothing", "3"], ("nothing: no such option",)),
    "misspelt option": (
        [*MPPVE, "--data.bach_size", "3"],
        ("data.bach_size: no such option", "data.batch_size"),
    ),
    "misspelt group": (
        [*MPPVE, "--evalution.every", "3"],
        ("evalution.every: no such option", "evaluation.every"),
    ),
    "misspelt option of an algorithm": (
        [*MPPVE, "--model.plan_lenght", "3"],
        ("model.plan_lenght: no such option", "plan_length?"),
    ),
    "stray word": ([*MPPVE, "stray"], ("stray: no such option",)),
    "option without a value": ([*MPPVE, "--data.env_id"], ("data.env_id:", "expected one")),
    "wrong type": ([*MPPVE, "--data.batch_size", "many"], ("data.batch_size:", "'many'", "int")),
    "wrong type in an algorithm": (
        [*MPPVE, "--model.plan_length", "2.5"],
        ("model.plan_length:", "'2.5'", "int"),
    ),
    "wrong type in a list": (
        [*MPPVE, "--model.hidden_sizes", "[wide]"],
        ("model.hidden_sizes:", "'wide'", "int"),
    ),
    "wrong type of several": ([*MPPVE, "--seed_everything", "a"], ("seed_everything:", "'a'")),
    "negative seed": ([*MPPVE, "--seed_everything", "-5"], ("seed_everything: -5", "0 to")),
    "no seed": ([*MPPVE, "--seed_everything", "true"], ("seed_everything: True", "0 to")),
    "no layers": ([*MPPVE, "--model.hidden_sizes", "[]"], ("model.hidden_sizes: []",)),
    "empty layer": ([*MPPVE, "--model.hidden_sizes", "[0]"], ("model.hidden_sizes: [0]",)),
    "learning rate": (
        [*MPPVE, "--model.learning_rate", "-1"],
        ("model.learning_rate: -1.0", "a number > 0"),
    ),
    "target rate": ([*MPPVE, "--model.target_rate", "2"], ("model.target_rate: 2.0", "(0, 1]")),
    "gradient norm": ([*MPPVE, "--model.actor_max_norm", "-1"], ("model.actor_max_norm: -1.0",)),
    "patience": ([*MPPVE, "--model.fit_patience", "0"], ("model.fit_patience: 0",)),
    "learned temperature of zero": (
        [*MPPVE, "--model.initial_temperature", "0"],
        ("model.initial_temperature: 0.0", "target_entropy is null"),
    ),
    "a limit of returns that have none": (
        [*MPPVE, "--model.max_return", "100", "--model.gamma", "1"],
        ("model.max_return: 100.0", "null where model.gamma is 1"),
    ),
    "a time after which Lightning would stop": (
        [*MPPVE, "--trainer.max_time", "00:01:00:00"],
        ("trainer.max_time: '3600.0 seconds'", "timeout 1h python -m lit_mbrl.fit"),
    ),
    "a plan that no episode holds": (
        [*MPPVE, "--model.plan_length", "1001"],
        ("model.plan_length: 1001", "at most 1000"),
    ),
    "a plan that the warm-up does not hold": (
        [*MPPVE, "--data.warmup_steps", "300", "--model.plan_length", "301"],
        ("model.plan_length: 301", "at most 300"),
    ),
    "nothing to hold out of a fit": (
        ["--config", str(CONF / "mbpo.yaml"), "--data.batch_size", "1", "--data.warmup_steps", "1"],
        ("data.warmup_steps: 1", "at least 2"),
    ),
    "an evaluation without end": (
        [*MPPVE, "--evaluation.time_limit", ".inf"],
        ("evaluation.time_limit: inf", "a number of seconds in (0, "),
    ),
    "a class misspelt": (["--model", "MPBO"], ("model: 'MPBO'", "did you mean MBPO?")),
    "an option of a class misspelt": (
        [*MPPVE, "--model.hiden_sizes", "[8]"],
        ("model.hiden_sizes: no such option", "did you mean model.hidden_sizes?"),
    ),
    "an algorithm's planner": (
        ["--config", str(CONF / "pets.yaml"), "--model.planner.elites", "100"],
        ("model.planner.elites: 100", "1 to model.planner.candidates (60)"),
    ),
    "an evaluation's planner": (
        [*MPPVE, "--evaluation.planner", "CEM", "--evaluation.planner.horizon", "0"],
        ("evaluation.planner.horizon: 0", "an integer of at least 1"),
    ),
    "no configuration": ([], ("model.class_path: missing", "see --config")),
    "no algorithm": (["--data.env_id", "Hopper-v5"], ("model: missing", "--config")),
    "options of no algorithm": (["--model.gamma", "0.9", *MPPVE], ("model.class_path: missing",)),
    "a key twice": (
        [*MPPVE, "--data.env_kwargs", "{a: 1, a: 2}"],
        ("data.env_kwargs: '{a: 1, a: 2}' was given",),
    ),
    "null for a number": (
        [*MPPVE, "--model.learning_rate", "null"],
        ("model.learning_rate: None was given", "float"),
    ),
    "null for a list": (
        [*MPPVE, "--model.hidden_sizes", "null"],
        ("model.hidden_sizes: None was given", "a list[int]"),
    ),
    "null for a planner": (
        [*MPPVE, "--evaluation.planner", "CEM", "--evaluation.planner.horizon", "null"],
        ("evaluation.planner.horizon: None was given", "int"),
    ),
    "null for a switch": (
        [*MPPVE, "--model.mask_plan", "null"],
        ("model.mask_plan: None was given", "bool"),
    ),
    "missing file": (["--config", "missing.yaml"], ("config:", "not exist", "missing.yaml")),
    "unknown algorithm": (
        [*MPPVE, "--model", "lit_mbrl.algorithms.Nope"],
        ("model:", "'lit_mbrl.algorithms.Nope'", "lit_mbrl.algorithms.MPPVE"),
    ),
    "no algorithm of ours": (
        [*MPPVE, "--model", "torch.nn.Linear"],
        ("model:", "torch.nn.Linear", "Agent"),
    ),
    "unknown task": ([*MPPVE, "--data.env_id", "Nope-v5"], ("data.env_id: 'Nope-v5'", "registry")),
    "misspelt task": ([*MPPVE, "--data.env_id", "Hoper-v5"], ("data.env_id:", "Hopper-v5")),
    "unknown module of a task": (
        [*MPPVE, "--data.env_id", "no_module:Toy-v0"],
        ("data.env_id: 'no_module:Toy-v0'", "'module:Name-v0'"),
    ),
    "discrete actions": (
        [*MPPVE, "--data.env_id", "CartPole-v1"],
        ("data.env_id: 'CartPole-v1'", "actions are vectors", "Discrete(2)"),
    ),
    "image observations": (
        [*MPPVE, "--data.env_id", "users_module:Images-v0"],
        ("data.env_id: 'users_module:Images-v0'", "observations are vectors", "(8, 8, 3)"),
    ),
    "unbounded actions": (
        [*MPPVE, "--data.env_id", "users_module:Unbounded-v0"],
        ("data.env_id: 'users_module:Unbounded-v0'", "finite bounds", "inf"),
    ),
    "unknown argument of a task": (
        [*MPPVE, "--data.env_kwargs", "{nope: 1}"],
        ("data.env_kwargs: {'nope': 1}", "constructor of InvertedPendulum-v5"),
    ),
    "termination that is not there": (
        [*MPPVE, "--data.termination", "nowhere.ends"],
        ("data.termination: 'nowhere.ends'", "'never'", "lit_mbrl.envs.termination.hopper"),
    ),
    "real ratio below 0": (
        [*MPPVE, "--data.real_ratio", "-0.1"],
        ("data.real_ratio: -0.1", "[0, 1]"),
    ),
    "real ratio above 1": (
        [*MPPVE, "--data.real_ratio", "1.5"],
        ("data.real_ratio: 1.5", "[0, 1]"),
    ),
    "batch larger than the buffer": (
        [*MPPVE, "--data.warmup_steps", "255"],
        ("data.warmup_steps: 255", "data.batch_size (256)"),
    ),
    "end before start": (
        [*MPPVE, "--rollout_length.start_step", "2000"],
        ("rollout_length.end_step: 1000", "rollout_length.start_step (2000)"),
    ),
    "more elites than networks": (
        [*MPPVE, "--model.dynamics_elites", "8"],
        ("model.dynamics_elites: 8", "model.dynamics_networks (7)"),
    ),
    "weight decay of too few layers": (
        [*MPPVE, "--model.dynamics_weight_decay", "[0, 0]"],
        ("model.dynamics_weight_decay: [0.0, 0.0]", "5 numbers"),
    ),
    "weight decay that lets weights grow": (
        [*MPPVE, "--model.dynamics_weight_decay", "[-1, 0, 0, 0, 0]"],
        ("model.dynamics_weight_decay: [-1.0", "numbers >= 0"),
    ),
    "an infinite number": (
        [*MPPVE, "--model.learning_rate", ".inf"],
        ("model.learning_rate: inf", "finite"),
    ),
    "a number that is none": (
        [*MPPVE, "--model.target_entropy", ".nan"],
        ("model.target_entropy: nan", "finite"),
    ),
    "a reward of another task": (
        ["--config", str(CONF / "pets.yaml"), "--data.env_id", "Hopper-v5"],
        ("model.reward: 'lit_mbrl.envs.rewards.balanced_pendulum'", "null", "11", "Hopper-v5"),
    ),
    "clipping by the trainer": (
        [*MPPVE, "--trainer.gradient_clip_val", "0.5"],
        ("trainer.gradient_clip_val: 0.5 was given", "null"),
    ),
    "a file for a folder of checkpoints": (
        [*MPPVE, "--checkpoint.folder", str(CONF / "mppve.yaml")],
        ("checkpoint.folder:", "a folder"),
    ),
    "two devices": (
        [*MPPVE, "--trainer.accelerator", "cpu", "--trainer.devices", "2"],
        ("trainer.devices: 2", "1, for the time being"),
    ),
    "unknown accelerator": (
        [*MPPVE, "--trainer.accelerator", "abacus"],
        ("trainer:", "accelerator='abacus'", "cpu"),
    ),
    "gradient steps": (
        [*MPPVE, "--trainer.max_steps", "100"],
        ("trainer.max_steps: 100", "-1", "trainer.max_epochs"),
    ),
    "no epoch": ([*MPPVE, "--trainer.max_epochs", "0"], ("trainer.max_epochs: 0", "at least 1")),
    "retraining without a model": (
        [*SAC, "--retraining.every", "250"],
        ("retraining.every: 250", "0 for SAC"),
    ),
    "compiling steps of changing shapes": (
        ["--config", str(CONF / "sacmve.yaml"), "--compilation.after", "250"],
        ("compilation.after: 250", "null for SACMVE"),
    ),
    "compiling plans that stop": (
        ["--config", str(CONF / "mpdp.yaml"), "--compilation.after", "250"],
        ("compilation.after: 250", "null for MPDP"),
    ),
    "compiling a longer expansion": (
        ["--config", str(CONF / "s2vg.yaml"), "--model.horizon", "2", "--compilation.after", "0"],
        ("compilation.after: 0", "null for S2VG"),
    ),
    "imagined data without retraining": (
        [*MBPO, "--retraining.every", "0"],
        ("data.real_ratio: 0.05", "retraining.every > 0"),
    ),
    "no real data for the actor": (
        [*MPPVE, "--data.real_ratio", "0"],
        ("data.real_ratio:", "0 real rows", "MPPVE"),
    ),
    **{
        f"{option} {given}": ([*MPPVE, f"--{option}", given], (f"{option}: {given}", "at least 1"))
        for option, given in [
            ("model.plan_length", "0"),
            ("model.plan_length", "-2"),
            ("model.critics", "0"),
            ("data.batch_size", "0"),
            ("data.updates_per_step", "0"),
            ("rollout_length.start", "-1"),
            ("rollout_length.end", "0"),
            ("retraining.rollouts", "0"),
            ("evaluation.every", "0"),
            ("evaluation.episodes", "0"),
            ("throughput.every", "0"),
        ]
    },
    **{
        f"{option} {given}": ([*MPPVE, f"--{option}", given], (f"{option}: {given}", ">= "))
        for option, given in [
            ("data.steps_per_epoch", "-1"),
            ("rollout_length.start_step", "-1"),
            ("retraining.every", "-5"),
            ("checkpoint.every", "-1"),
        ]
    },
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_line(
    case: str, empty: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    arguments, expected = REFUSED[case]
    status = main(arguments)
    assert_refused(status, *capsys.readouterr(), expected)
    # Outside pytest a warning would be another line.
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize("case", ["misspelt option of an algorithm", "misspelt task"])
def test_bad_input_in_a_process_of_its_own(case: str, empty: Path) -> None:
    arguments, expected = REFUSED[case]
    command = [sys.executable, "-m", "lit_mbrl.fit", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert_refused(done.returncode, done.stdout, done.stderr, expected)
