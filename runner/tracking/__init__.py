"""MLflow, all of it: what journals hold is sent from a thread, so that MLflow never stops a run."""
