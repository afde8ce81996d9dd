"""The version, in one place: the package, its wheel and what it writes all read it here."""

__version__ = "0.2.0"
