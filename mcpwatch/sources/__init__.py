"""Bytes in: follows logs, reads saved ones and pipes, and cuts them into raw lines."""
