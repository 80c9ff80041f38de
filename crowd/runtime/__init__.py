"""Actors in general; nothing here knows about training.

Layout:
    actor.py       one actor's life, and the reference by which others talk to it
    mailbox.py     the bounded queue in front of it, and messages that want an answer
    supervisor.py  starts actors, restarts them and ends them
    backoff.py     how long to wait before what failed is tried again
    clock.py       the clock of a node's actors
    seldom.py      what happens again and again is told now and then
"""

from crowd.runtime.actor import Actor, ActorRef
from crowd.runtime.mailbox import Ask, Mailbox
from crowd.runtime.supervisor import ChildSpec, Strategy, Supervisor

__all__ = ["Actor", "ActorRef", "Ask", "ChildSpec", "Mailbox", "Strategy", "Supervisor"]
