"""Live feeds: from a venue's websocket, and its REST interface after an interruption, to topic `trades`."""
