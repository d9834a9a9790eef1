"""Prefect tasks: each wraps one step of the library, and adds retries, names and logs."""
