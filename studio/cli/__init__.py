"""The command line: each verb parses, calls one engine function, and says what came of it."""
