"""Settings of the bias suites."""

from __future__ import annotations

from pydantic import Field

from harness.api import Settings


class BiasSettings(Settings):
    """Settings of the bias suites."""

    restricted: bool = Field(
        default=False, description="measure a head that lacks categories on the images it covers, as e.g. TI@7of16"
    )
    head: str = Field(
        default="",
        description="class list to whose classes the logits are restricted, e.g. imagenet100, so that a 1000-way head "
        "can be set beside a 100-way one",
    )
    batch_size: int = Field(default=64, ge=1, description="images a step; changes no decision")
    threads: int = Field(default=1, ge=1, description="decoding threads; change no decision")

    def wording(self) -> str:
        """Return what the settings add to the protocol."""
        # The word stands in the protocol of stored records: another one would set equal measurements apart.
        return f"; logits narrowed to {self.head}" if self.head else ""


class TextureSettings(BiasSettings):
    """Settings of texture bias."""

    resize: int = Field(
        default=0,
        ge=0,
        description="pixels to which the shorter side is resized before a centre crop of the network's size, e.g. 256, a "
        "protocol of its own; 0: images as stored",
    )

    def geometry(self) -> str:
        """Return how images reach the network, in words."""
        return f"shorter side {self.resize}, centre crop of the network's size" if self.resize else "images as stored"
