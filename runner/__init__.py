"""A declarative runner for fine-tuning experiments: YAML in, tuned model and MLflow run out."""

__version__ = "0.1.0"
