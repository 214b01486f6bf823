"""The experiment trackers that a run can report to: Weights & Biases, MLflow and Trackio.

Each is called from one thread, and may raise anything: `tracking.Tracker` keeps its errors away from the training.
Addresses and logins are the trackers' own settings, such as WANDB_MODE, MLFLOW_TRACKING_URI and TRACKIO_DIR.
"""

import json
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

Config = Mapping[str, Mapping[str, Any]]  # {group: {name: value}}, as JSON holds them
LONGEST_PARAM = 6_000  # characters, of MLflow


class Backend(Protocol):
    """A run of a tracker, which a constructor begins, or continues if it is given the id."""

    run_id: str

    def log(self, metrics: Mapping[str, float], step: int) -> None: ...

    def picture(self, path: Path, step: int) -> None: ...

    def finish(self, *, failed: bool) -> None: ...


class WandB:
    """Weights & Biases; its files are in the folder of the run."""

    def __init__(self, project: str, folder: Path, config: Config, run_id: str | None) -> None:
        self.wandb: Any = import_module("wandb")
        self.run_id = run_id or uuid4().hex[:12]
        settings = self.wandb.Settings(silent=True, console="off")
        self.run = self.wandb.init(
            project=project, id=self.run_id, name=folder.name, dir=folder, resume="allow", settings=settings,
            config={**config}, allow_val_change=True,
        )  # fmt: skip
        # The axis is our step: that of W&B may not go back, which a run does when it is resumed.
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.run.log({**metrics, "step": step})

    def picture(self, path: Path, step: int) -> None:
        self.run.log({path.stem: self.wandb.Image(str(path)), "step": step})

    def finish(self, *, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))


class MLflow:
    """MLflow; a project is an experiment. Parameters are fixed once they are set, those of a resumed run too."""

    def __init__(self, project: str, folder: Path, config: Config, run_id: str | None) -> None:
        self.entities: Any = import_module("mlflow.entities")
        self.client = import_module("mlflow.tracking").MlflowClient()
        if run_id is not None:
            self.client.update_run(run_id, status="RUNNING")
            self.run_id = run_id
            return
        found = self.client.get_experiment_by_name(project)
        experiment = self.client.create_experiment(project) if found is None else found.experiment_id
        self.run_id = self.client.create_run(experiment, run_name=folder.name).info.run_id
        values = {f"{group}.{name}": value for group, values in config.items() for name, value in values.items()}
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
        params = [self.entities.Param(_mlflow_name(name), text[:LONGEST_PARAM]) for name, text in texts.items()]
        self.client.log_batch(self.run_id, params=params[:100])
        self.client.log_batch(self.run_id, params=params[100:])

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        now = time.time_ns() // 1_000_000
        rows = [self.entities.Metric(name, value, now, step) for name, value in metrics.items()]
        self.client.log_batch(self.run_id, metrics=rows)

    def picture(self, path: Path, step: int) -> None:
        self.client.log_artifact(self.run_id, str(path))

    def finish(self, *, failed: bool) -> None:
        self.client.set_terminated(self.run_id, "FAILED" if failed else "FINISHED")


class Trackio:
    """Trackio, on this machine, or where its environment variables say."""

    def __init__(self, project: str, folder: Path, config: Config, run_id: str | None) -> None:
        self.trackio: Any = import_module("trackio")
        self.run_id = run_id or f"{folder.name}-{uuid4().hex[:6]}"
        self.run = self.trackio.init(
            project, self.run_id, config={**config}, resume="allow", embed=False, auto_log_gpu=False,
            auto_log_cpu=False,
        )  # fmt: skip

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.run.log({**metrics}, step=step)

    def picture(self, path: Path, step: int) -> None:
        self.run.log({path.stem: self.trackio.Image(str(path))}, step=step)

    def finish(self, *, failed: bool) -> None:
        self.run.finish()


def _mlflow_name(name: str) -> str:
    """Returns a name with the characters that MLflow has; the record of a run has blanks in some."""
    return name.replace(",", "").replace("'", "")


BACKENDS: dict[str, type[WandB] | type[MLflow] | type[Trackio]] = {"wandb": WandB, "mlflow": MLflow, "trackio": Trackio}
