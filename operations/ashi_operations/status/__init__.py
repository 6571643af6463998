"""`ashi status`: the pipeline at a glance, from Kafka alone."""
