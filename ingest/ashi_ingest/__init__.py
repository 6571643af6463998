"""The first stage: what venues send becomes the topic `trades`."""
