"""Objects that land in a bucket, or lie below a prefix: found, ingested, answered for."""
