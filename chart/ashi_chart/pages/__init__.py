"""Those who look on: who is let in, the files they get, and what each connected page is told."""
