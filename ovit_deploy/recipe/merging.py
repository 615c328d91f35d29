"""Merging of tokens: fewer of them after each block (ToMe). No torch here."""

from typing import Literal

from pydantic import Field

from ovit_deploy.recipe.declaration import Modifier


class TokenMergingModifier(Modifier):
    """Merge the tokens that are most alike, from ``start_epoch`` on; weights stay as they are (arXiv 2210.09461)."""

    tokens: int = Field(ge=1, description="that go in a block, r in the paper; never more than half of what is there")
    schedule: Literal["constant", "decreasing"] = Field(
        "constant", description="decreasing: twice as many in the first block, none in the last"
    )

    def per_block(self, numbers: list[int]) -> dict[int, int]:
        """How many tokens go in each block."""
        if self.schedule == "constant" or len(numbers) < 2:
            return dict.fromkeys(numbers, self.tokens)
        last = len(numbers) - 1
        return {number: int(2 * self.tokens * (last - place) / last) for place, number in enumerate(numbers)}

    def describe(self) -> str:
        """In a few words."""
        return f"{self.tokens} tokens a block{', decreasing' if self.schedule == 'decreasing' else ''}"
