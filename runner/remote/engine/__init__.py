"""A remote engine: the primitives of `runner.training` by a service's requests.

service.py         the contract: what a service can be asked, and how it may fail
http.py            requests sent once, or until they are answered
ledger.py          the requests of a run on disk, each noted before it is sent
driver.py          each request carried out once, as far as a service allows; replay after a kill
coming.py          answers fetched while the next requests are sent
settling.py        an operation brought to its answer, whatever became of its request
doubt.py           what the weights and the count of steps say, where an answer was lost
session.py         the session: taken up, opened, ended
remote_engine.py   the engine that the loop drives
"""
