"""The process that clients talk to: arguments, routes, what a request asks for and is told."""
