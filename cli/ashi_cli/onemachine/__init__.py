"""The whole flow on one machine: a broker, the stages as child processes, the demo."""
