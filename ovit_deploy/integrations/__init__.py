"""This package's pruners inside other tools. Each file imports its tool; nobody imports these files but users."""
