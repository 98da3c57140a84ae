"""`python -m mcpwatch`."""

from mcpwatch.cli import main

if __name__ == "__main__":
    main()
