"""View: the recipe by which pictures are drawn while they are learnt.

    view("crop")    one of modalities.image_views: plain, flip, crop, crop_upright, light, strong, trivial, rand

Without it views are "light". Pictures whose class depends on which way round they are (digits, letters, road signs)
want "plain" or "crop_upright". A view is drawn before a frozen part runs, so it is cached with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from topwork.adaptation import Technique
from topwork.errors import BadSetting, UnknownName
from topwork.modalities.image_views import RECIPES


@dataclass(frozen=True)
class View(Technique):
    """A recipe for views."""

    modalities: ClassVar[tuple[str, ...]] = ("image",)

    name: str = "crop"

    def __post_init__(self) -> None:
        whole = [name for name, recipe in RECIPES.items() if recipe.scale == 1]
        if not isinstance(self.name, str):
            raise BadSetting(f"view: name={self.name!r} is not a name. Expected one of: {', '.join(whole)}")
        if self.name not in whole:
            raise UnknownName.among(self.name, "view", whole)

    @property
    def view(self) -> str:
        """The recipe's name."""
        return self.name
