"""mcpwatch: a terminal live monitor and incident console for MCP servers."""
