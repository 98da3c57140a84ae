"""mcpwatch: a terminal live monitor and incident console for MCP servers."""

__version__ = "0.1.0"
