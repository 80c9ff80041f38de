"""Actors in general; nothing here knows about training.

Layout: `mailbox` (the bounded queue, and messages that want an answer), `actor` (one actor's life, and the reference by
which others talk to it), `supervisor` (who owns actors, restarts them and ends them).
"""

from crowd.runtime.actor import Actor, ActorRef
from crowd.runtime.mailbox import Ask, Mailbox
from crowd.runtime.supervisor import ChildSpec, Strategy, Supervisor

__all__ = ["Actor", "ActorRef", "Ask", "ChildSpec", "Mailbox", "Strategy", "Supervisor"]
