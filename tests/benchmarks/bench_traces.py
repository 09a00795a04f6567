"""What graded rows in MLflow's pages cost: 200 prompts answered by two models, written to SQLite and read back.

    python tests/benchmarks/bench_traces.py

Each row has two grades and a reference, as they are in a run's folder. It is done three times, each in a store of its
own with MLflow's defaults; then once more over what is there already, as after a kill. Processor time is next to the
clock's, for a machine that others use, too.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

PROMPTS, TIMES, WORDS = 200, 3, 100


def main() -> None:
    """Print rows written and read back, and milliseconds a row."""
    from mlflow import MlflowClient

    from runner.tracking import traces
    from tests import stores
    from tests.tracking import graded_rows

    took: list[float] = []
    worked: list[float] = []
    again: list[float] = []
    read_back: list[int] = []
    for _ in range(TIMES):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            stores.put_empty(folder)
            graded_rows.put(folder, PROMPTS, words=WORDS)
            client: Any = MlflowClient(f"sqlite:///{folder}/mlflow.db")
            experiment = client.create_experiment("rows")
            run = client.create_run(experiment).info.run_id
            for times in (took, again):
                began, worked_before = time.perf_counter(), time.process_time()
                traces.write(client, experiment, run, folder, time.time())
                times.append(1000 * (time.perf_counter() - began) / (2 * PROMPTS))
                if times is took:
                    worked.append(1000 * (time.process_time() - worked_before) / (2 * PROMPTS))
            found = client.search_traces(locations=[experiment], max_results=500)
            read_back.append(sum(len(each.info.assessments) == 3 and len(each.data.spans) == 1 for each in found))
    print(
        json.dumps(
            {
                "rows": 2 * PROMPTS,
                "read_back": min(read_back),
                "ms_per_row": [round(each, 1) for each in took],
                "processor_ms_per_row": [round(each, 1) for each in worked],
                "ms_per_row_that_is_there": [round(each, 2) for each in again],
            }
        )
    )


if __name__ == "__main__":
    main()
