"""Any fine-tuning service that speaks OpenAI's API: files, jobs, events, metrics, answers."""
