"""What registers the flows on a Prefect server: prefect.yaml says which deployments there are, automations.py what follows on events."""
