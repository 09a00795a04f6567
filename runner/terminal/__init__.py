"""What a person sees in the terminal, and what all commands share."""
