"""A run's model behind an OpenAI-compatible address, by an engine made for that; there is no server of our own.

engines/      one engine a file: what it loads, how its process is started
server.py     the process: started, waited for, ended
bound.py      what ends it with the process that wants it
client.py     what is asked of it over HTTP on this machine
"""
