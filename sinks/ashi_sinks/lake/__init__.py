"""The lake: Delta tables in a folder or on S3."""
