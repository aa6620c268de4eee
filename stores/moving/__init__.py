"""A cluster's way from one store to another while it runs: `FollowingStore`, then `MovingStore`."""

from .following import FollowingStore
from .moving import MovingStore
from .pair import StorePair, Transition, transition_of

__all__ = ["FollowingStore", "MovingStore", "StorePair", "Transition", "transition_of"]
