"""The command line, the shell, pages and all that is printed.

May import: everything; nothing imports it but `trivium.__main__` and, when asked, `trivium.main`.
"""
