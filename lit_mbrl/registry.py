"""The trained policy as an MLflow model."""

import tempfile
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import torch
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import Schema, TensorSpec

from lit_mbrl import policy_loader
from lit_mbrl.policy import Policy


def register(client: MlflowClient, run_id: str, name: str, policy: Policy, env_step: int) -> str:
    """Store a policy as an MLflow model of a run, and register it as the next version of a name.

    The model is the exported program and the source of `lit_mbrl.policy_loader`; nothing in it is
    pickled code. Observations have the type that the task returns.

    Args:
        client: Of the store.
        run_id: The run that learned it.
        name: The registered model's.
        policy: The policy.
        env_step: Environment steps that it has learned from.

    Returns:
        The address that `mlflow.pyfunc.load_model` takes.
    """
    example = np.zeros((1, *policy.observations.shape), policy.observations.dtype)
    actions = TensorSpec(np.dtype(np.float32), (-1, *policy.actions.shape))
    observations = TensorSpec(example.dtype, (-1, *example.shape[1:]))
    releases = {"mlflow": mlflow.__version__, "torch": torch.__version__.partition("+")[0]}
    program = policy.program()  # first: it is what may fail
    experiment = client.get_run(run_id).info.experiment_id
    model = client.create_logged_model(experiment, name, source_run_id=run_id)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, env_step)])
    with tempfile.TemporaryDirectory() as folder:
        exported, stored = Path(folder, "policy.pt2"), Path(folder, "model")
        torch.export.save(program, exported)
        mlflow.pyfunc.save_model(
            stored,
            loader_module=policy_loader.__name__.rpartition(".")[2],
            data_path=str(exported),
            code_paths=[policy_loader.__file__],
            signature=ModelSignature(Schema([observations]), Schema([actions])),
            input_example=example,
            pip_requirements=[f"{name}=={release}" for name, release in releases.items()],
            mlflow_model=Model(run_id=run_id, model_id=model.model_id),
        )
        client.log_model_artifacts(model.model_id, str(stored))
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(
        name,
        f"models:/{model.model_id}",
        run_id,
        await_creation_for=0,  # it is there when the call returns
        model_id=model.model_id,
    )
    return f"models:/{name}/{version.version}"
