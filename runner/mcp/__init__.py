"""The runner for agents: an MCP server by the official SDK.

    requested.py   a request that an agent has typed: what it may say, the plan, the price that it has to allow
    runs.py        runs that are started and looked at: each is a process of its own, which outlives the server
    __main__.py    the server: a tool for each

Source: https://modelcontextprotocol.io
"""
