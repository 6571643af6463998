"""How the tests themselves run: in which order, compiled once, with a Java that has parsed its classes."""
