"""Commands of the command line, a file a topic; `flows.cli` registers them."""
