"""`Secret`: a text that shows itself only to who asks for it."""

from __future__ import annotations

import hmac
from typing import Any, Final, NoReturn

__all__ = ["Secret"]

_HIDDEN: Final = "Secret(***)"


class Secret:
    """A credential. `reveal()` is the text; neither `repr`, `str`, an f-string nor a traceback shows it,
    and it cannot be pickled, packed or written as JSON.

        httpx.get(url, headers={"Authorization": f"Bearer {token.reveal()}"})
    """

    __slots__ = ("__text",)
    __text: str

    def __init__(self, text: str) -> None:
        """
        Raises:
            TypeError: `text` is no text; its value is not named.
        """
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a secret is a text, not a {type(text).__name__}")
        if hasattr(self, "_Secret__text"):
            raise AttributeError("a Secret cannot be changed")
        object.__setattr__(self, "_Secret__text", text)

    def reveal(self) -> str:
        """The text itself: hand it to what needs it, and keep it nowhere."""
        return self.__text

    def __repr__(self) -> str:
        return _HIDDEN

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return _HIDDEN

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a Secret cannot be changed")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        mine, theirs = (each.__text.encode("utf-8", "surrogatepass") for each in (self, other))
        return hmac.compare_digest(mine, theirs)

    def __hash__(self) -> int:
        return hash(("Secret", self.__text))

    def __bool__(self) -> bool:
        return bool(self.__text)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a Secret cannot be pickled or copied out of its process")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled or copied out of its process")
