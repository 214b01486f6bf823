"""Jobs of a Slurm cluster: an array for the parts, and a job for what follows; they wait for each other.

References: https://slurm.schedmd.com/job_array.html.
"""

import shlex
import subprocess
import sys
from pathlib import Path

from bert_jax.data.preparation.manifest import Manifest

MOST_TASKS = 1000  # of an array: Slurm's default of MaxArraySize is 1001


def make_script(manifest: Manifest) -> str:
    """Returns a shell script that submits the jobs of a store that was begun.

    A part that fails stops the jobs that wait for it. The same script then does what is left. Partition, time and
    memory are Slurm's own settings: SBATCH_PARTITION, SBATCH_TIMELIMIT, SBATCH_MEM_PER_CPU and others.
    """
    store = Path(manifest.settings.output).absolute()
    command = f"{shlex.quote(sys.executable)} -m bert_jax.cli.main prepare --output {shlex.quote(str(store))}"
    last = len(manifest.parts) - 1
    tasks = min(last, MOST_TASKS - 1)
    each = f"for part in $(seq $SLURM_ARRAY_TASK_ID {MOST_TASKS} {last}); do {command} --part $part || exit 1; done"
    logs = store / "logs"
    lines = [
        "#!/bin/bash",
        f"# Prepares {store} in {last + 1} parts.",
        "set -euo pipefail",
        f"cd {shlex.quote(str(Path.cwd()))}",
        f"mkdir -p {shlex.quote(str(logs))}",
        f"submit() {{ sbatch --parsable --job-name=prepare --cpus-per-task=1 --output={shlex.quote(str(logs))}/%j.out "
        '"$@"; }',
        f"parts={shlex.quote(each)}",
    ]
    after = ""
    if manifest.has_survey:
        lines.append(f'surveyed=$(submit --array=0-{tasks} --wrap "$parts")')
        lines.append(f"combined=$(submit --dependency=afterok:$surveyed --wrap {shlex.quote(command + ' --combine')})")
        after = "--dependency=afterok:$combined "
    lines.append(f'tokenized=$(submit {after}--array=0-{tasks} --wrap "$parts")')
    lines.append(f"submit --dependency=afterok:$tokenized --wrap {shlex.quote(command)}")
    return "\n".join(lines) + "\n"


def submit(script: str) -> None:
    """Runs the script, which submits the jobs.

    Raises:
        OSError: Slurm is not installed, or has refused a job.
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise OSError(f"the jobs were not submitted: {reason[0]}")
