"""A hosted DPO job as people write it: one SDK call after the other, nothing remembered, nothing resumed.

    python linear_program.py TRAIN.jsonl HELD_OUT.jsonl DEPLOYMENT

It is here to be compared with: the runner must send the same job.
"""

import os
import sys
import time

from azure.ai.projects import AIProjectClient
from azure.identity import DefaultAzureCredential
from dotenv import load_dotenv

load_dotenv()
training_path, validation_path, deployment = sys.argv[1:]
project = AIProjectClient(endpoint=os.environ["AZURE_AI_PROJECT_ENDPOINT"], credential=DefaultAzureCredential())
client = project.get_openai_client()

with open(training_path, "rb") as file:  # noqa: PTH123 (as the program that is imitated does)
    training = client.files.create(file=file, purpose="fine-tune")
with open(validation_path, "rb") as file:  # noqa: PTH123
    validation = client.files.create(file=file, purpose="fine-tune")
for uploaded in (training, validation):
    client.files.wait_for_processing(uploaded.id, poll_interval=0.1)

job = client.fine_tuning.jobs.create(
    training_file=training.id,
    validation_file=validation.id,
    model=os.environ["MODEL_NAME"],
    method={
        "type": "dpo",
        "dpo": {"hyperparameters": {"n_epochs": 3, "batch_size": 1, "learning_rate_multiplier": 1.0}},
    },
    extra_body={"trainingType": "GlobalStandard"},
)
while job.status not in ("succeeded", "failed", "cancelled"):
    time.sleep(0.1)
    job = client.fine_tuning.jobs.retrieve(job.id)

answer = client.responses.create(model=deployment, input=[{"role": "user", "content": "How do I keep bread fresh?"}])
sys.stdout.write(f"{job.status}: {answer.output_text}\n")
