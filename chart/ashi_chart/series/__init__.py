"""The series that somebody looks at: loaded from the store and the topic, kept up, forgotten."""
