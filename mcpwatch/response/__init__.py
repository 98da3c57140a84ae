"""What an operator does: plan, see the diff, apply, and see in the log that it bites."""
