"""What runs in Faust: the application, its batch transport, its tables. No other package knows Faust."""
