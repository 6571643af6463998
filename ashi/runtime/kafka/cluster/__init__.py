"""What Kafka holds: topics and their ids, where logs begin and end and which they are, groups, and who may do what."""
