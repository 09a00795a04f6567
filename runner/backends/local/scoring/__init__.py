"""Log-probabilities of answers: packed rows through a model, with kernels that give its own values."""
