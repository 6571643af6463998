"""The venues as servers. They share no code with the parsers and adapters that are tested against them."""
