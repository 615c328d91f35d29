"""This package's pruners inside other people's tools. Each file imports its tool; nothing here is imported by others."""
