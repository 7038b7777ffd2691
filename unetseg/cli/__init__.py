"""The commands: one small module each, that parses, calls the library once and prints."""
