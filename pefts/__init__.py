"""Training: every option, and the trainer."""
