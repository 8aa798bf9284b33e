#!/usr/bin/env bash
# A tracking server for one machine: sqlite and artifacts in the working directory, heard by this
# machine alone. Options of `mlflow server` override these: mlflow/serve.sh --port 5001
set -euo pipefail
exec mlflow server \
    --backend-store-uri "sqlite:///$PWD/mlflow.db" \
    --artifacts-destination "$PWD/mlartifacts" \
    --host 127.0.0.1 \
    --port 5000 \
    --workers 2 \
    "$@"
